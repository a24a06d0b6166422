"""The defender that ships with the package: small, usable as it is, and better than leaving prompts alone."""

import numpy as np
import torch

from ppd_agents.defender import WEIGHTS, Defender
from ppd_agents.dqn.agent import GreedyAgent, load_agent
from ppd_agents.evaluation.rollouts import generators, play
from ppd_agents.training.presets import preset
from ppd_agents.training.starts import AttackRunner, draw_ideal
from ppd_env.features.registry import load_features
from ppd_env.scenes.bank import open_bank
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator

FOLDER = WEIGHTS / "mini"


def test_it_is_small_and_belongs_to_the_features_and_the_preset_of_this_version():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 3e6
    agent = load_agent(FOLDER)
    assert agent.features_signature == load_features(agent.features).signature
    bystanders = {"progress": True, "checkpoint_every": preset("mini").checkpoint_every}
    assert agent.notes["config"] | bystanders == preset("mini").to_json() | bystanders


def test_it_repairs_what_random_attacks_break_and_leaves_clean_prompts_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path))
    bank = open_bank("shapes://val?count=32&seed=5", "mini", "mini", 16)
    simulator, rng = Simulator(bank, load_segmenter("mini")), np.random.default_rng(0)
    rows = torch.arange(len(bank))
    ideal = draw_ideal(bank, rows, "jittered", rng)
    attacked = AttackRunner(simulator).run(rows, ideal, 6, None, rng)
    policy = GreedyAgent(load_agent(FOLDER))

    def dice(status):
        return simulator.segment(rows, status).dice.mean().item()

    def defended(status):
        played = play(
            simulator,
            rows,
            status,
            policy,
            attacking=False,
            budgets=(6,),
            rngs=generators(0, bank.indices, 0),
        )
        return dice(played[6])

    assert defended(attacked) > dice(attacked) + 0.3 * (dice(ideal) - dice(attacked))
    assert defended(ideal) > dice(ideal) - 0.03


def test_it_is_found_by_name():
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:48, 16:48] = 255
    found = Defender.load("mini").refine(image, [(30, 30), (36, 34), (4, 4), (60, 60)], [1, 1, 0, 0])
    assert (found.labels == 1).any()
