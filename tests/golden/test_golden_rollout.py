"""One recorded rollout per role: a change here is a change of the game, and asks for a new version of its id.

Run ``python -m pytest tests/golden --record-golden`` to record anew.
"""

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from ppd_env.testing import rollout

FOLDER = Path(__file__).parent
CASES = {
    "defender": {"role": "defender", "attack_steps": [3, 6], "defence_steps": [3, 6]},
    "attacker": {"role": "attacker", "attack_steps": 5, "prompts_per_step": 2},
}


def record(kwargs):
    """Play two seeded episodes and note what an agent would see."""
    steps = []
    for observation, reward, terminated, truncated, info in rollout(gym.make("PPD-v0", **kwargs), 7, 2):
        steps.append(
            {
                "scene": info["scene_name"],
                "status": "".join(map(str, observation["status"])),
                "legal": int(np.flatnonzero(observation["action_mask"]).sum()),
                "steps_left": round(float(observation["steps_left"][0]), 6),
                "edges": int(observation["edge_index"][0].sum()),
                "dice": round(info["dice"], 5),
                "reward": round(reward, 5),
                "over": [terminated, truncated],
            }
        )
    return steps


@pytest.mark.parametrize("name", CASES)
def test_rollouts_are_as_recorded(name, tiny_kwargs, request):
    played = record({**tiny_kwargs, **CASES[name]})
    path = FOLDER / f"rollout_{name}.json"
    if request.config.getoption("--record-golden", default=False):
        path.write_text(json.dumps(played, indent=1) + "\n")
    recorded = json.loads(path.read_text())
    assert len(played) == len(recorded)
    for number, (now, then) in enumerate(zip(played, recorded, strict=True)):
        for key in ("dice", "reward"):
            assert now.pop(key) == pytest.approx(then.pop(key), abs=2e-5), (number, key)
        assert now == then, number
