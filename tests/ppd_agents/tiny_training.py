"""A training of seconds: twelve small scenes, a fake segmenter, a narrow network."""

from ppd_agents.training.presets import preset


def tiny(**changes):
    fields = {
        "scenes": "shapes://train?count=12&seed=3",
        "segmenter": "fake",
        "features": "fake",
        "grid": 8,
        "rounds": 4,
        "games": 4,
        "steps": (2, 4),
        "branches": 3,
        "batch_size": 32,
        "gradient_steps": 2,
        "buffer_size": 500,
        "learning_starts": 4,
        "gamma": 0.5,
        "target_update": 3,
        "hidden": 16,
        "initial_mask": False,
        "rehearsals": 0,
        "final_rehearsals": 1,
        "final_updates": 6,
        "checkpoint_every": 2,
        "tensorboard": False,
        "progress": False,
    }
    return preset("mini", **fields | changes)
