"""The same games and trainings on a CUDA device."""

import numpy as np
import pytest
import tiny_sam
import torch
from gymnasium import spaces

from ppd_agents.dqn.replay import SceneReplayBuffer
from ppd_agents.dqn.transition_store import Transitions, pack_status, unpack_status
from ppd_agents.training.adversarial import train_adversarial
from ppd_agents.training.presets import preset
from ppd_env.scenes.bank import open_bank
from ppd_env.segmenters.contract import Embedding
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.segmenters.sam.decoder import MaskDecoder
from ppd_env.segmenters.sam.frames import Letterbox
from ppd_env.segmenters.sam.options import DecoderOptions
from ppd_env.segmenters.sam.segmenter import SCALE_NAME, SamSegmenter
from ppd_env.simulator import Simulator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_samples_of_the_replay_lie_on_the_device():
    bits = pack_status(torch.randint(0, 3, (2, 20), dtype=torch.int8, device="cuda"))
    assert torch.equal(unpack_status(bits, 20).cpu(), unpack_status(bits.cpu(), 20))
    space = spaces.Dict(
        {"scene": spaces.Box(0, 9, (1,), np.int64), "status": spaces.Box(0, 2, (20,), np.int8)}
    )
    options = {"attacking": True, "rng": np.random.default_rng(0), "prioritised": True}
    buffer = SceneReplayBuffer(10, space, spaces.Discrete(41), "cuda", 2, **options)
    before, after = bits.cpu().numpy(), bits.cpu().numpy()
    numbers = np.arange(2)
    buffer.store.add(Transitions(numbers, before, numbers, np.ones(2, np.float32), numbers > 5, after))
    drawn = buffer.sample(4)
    tensors = [*drawn.observations.values(), *drawn.next_observations.values(), *drawn[3:7], drawn.actions]
    assert all(tensor.is_cuda for tensor in tensors)
    buffer.reweigh(drawn, drawn.rewards)


def segmented(device):
    bank = open_bank("shapes://val?count=4&seed=0", "mini", "mini", 16, device)
    generator = torch.Generator().manual_seed(0)
    kinds = torch.tensor([0] * 8 + [1, 2], dtype=torch.int8)
    status = kinds[torch.randint(len(kinds), (32, 256), generator=generator)]
    simulator = Simulator(bank, load_segmenter("mini", device))
    return simulator.segment(torch.arange(32) % 4, status)


@pytest.mark.parametrize("options", [{}, {"dtype": "bfloat16"}, {"dtype": "bfloat16", "compile": True}])
def test_sam_decodes_as_on_the_cpu(options):
    """Twice, as graphs are replayed and constants gathered from a table the second time."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(3, tiny_sam.DIM, tiny_sam.SIZES.cells, tiny_sam.SIZES.cells, generator=generator)
    rows = torch.tensor([2, 0, 1, 2])
    points = tiny_sam.SIDE * torch.rand(4, 7, 2, generator=generator)
    labels = torch.randint(-1, 2, (4, 7), generator=generator)
    labels[:, 0] = 1
    found = {}
    for device, chosen in (("cpu", {}), ("cuda", options)):
        decoder = tiny_sam.randomise(MaskDecoder(tiny_sam.SIZES), seed=1)
        sam = SamSegmenter(
            torch.nn.Identity(),
            decoder,
            Letterbox(tiny_sam.SIDE),
            "u",
            "s",
            torch.device(device),
            DecoderOptions(**chosen),
        )
        scenes = Embedding({"image": image, SCALE_NAME: torch.ones(3, 2)}, torch.full((3, 2), 64)).to(device)
        for _ in range(2):
            logits, _ = sam.decode(scenes, points.to(device), labels.to(device), rows=rows.to(device))
        assert logits.device.type == device
        found[device] = logits.cpu()
    apart = (found["cpu"] > 0) != (found["cuda"] > 0)
    if options:
        assert apart.float().mean() < 0.03
    else:
        torch.testing.assert_close(found["cuda"], found["cpu"], atol=1e-3, rtol=1e-3)


def test_masks_are_those_of_the_cpu():
    here, there = segmented("cpu"), segmented("cuda")
    assert there.logits.is_cuda
    torch.testing.assert_close(there.logits.cpu(), here.logits, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(there.dice.cpu(), here.dice, rtol=0, atol=0.01)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gamma": 0.9, "double": True, "dueling": True, "n_step": 2, "prioritised": True},
        {"feedback": "both", "prompts_per_step": 4, "label_mode": "truth", "rehearsals": 0},
    ],
)
def test_a_training_stays_on_its_device(tmp_path, changes):
    config = preset(
        "mini",
        device="cuda",
        scenes="shapes://train?count=8&seed=0",
        rounds=2,
        final_updates=4,
        games=4,
        steps=(2, 3),
        learning_starts=4,
        progress=False,
        tensorboard=False,
        **changes,
    )
    result = train_adversarial(config, tmp_path)
    assert all(next(agent.network.parameters()).is_cuda for agent in (result.attacker, result.defender))
