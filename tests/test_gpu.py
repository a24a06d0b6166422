"""The same games and trainings on a CUDA device."""

import pytest
import torch

from ppd_agents.training.adversarial import train_adversarial
from ppd_agents.training.presets import preset
from ppd_env.scenes.bank import open_bank
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def segmented(device):
    bank = open_bank("shapes://val?count=4&seed=0", "mini", "mini", 16, device)
    generator = torch.Generator().manual_seed(0)
    kinds = torch.tensor([0] * 8 + [1, 2], dtype=torch.int8)
    status = kinds[torch.randint(len(kinds), (32, 256), generator=generator)]
    simulator = Simulator(bank, load_segmenter("mini", device))
    return simulator.segment(torch.arange(32) % 4, status)


def test_masks_are_those_of_the_cpu():
    here, there = segmented("cpu"), segmented("cuda")
    assert there.logits.is_cuda
    torch.testing.assert_close(there.logits.cpu(), here.logits, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(there.dice.cpu(), here.dice, rtol=0, atol=0.01)


def test_a_training_stays_on_its_device(tmp_path):
    config = preset(
        "mini",
        device="cuda",
        scenes="shapes://train?count=8&seed=0",
        rounds=2,
        games=4,
        steps=(2, 3),
        learning_starts=4,
        progress=False,
        tensorboard=False,
    )
    result = train_adversarial(config, tmp_path)
    assert all(next(agent.network.parameters()).is_cuda for agent in (result.attacker, result.defender))
