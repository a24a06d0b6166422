"""The embedded segmenter: loading, exactness of its caches, and that it behaves as SAM does."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ppd_env.errors import ConfigError
from ppd_env.features.registry import load_features
from ppd_env.prompting.ideal import ideal_prompts
from ppd_env.scenes.bank import open_bank
from ppd_env.scenes.sources import open_source
from ppd_env.segmenters.mini.segmenter import WEIGHTS, load_mini
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator
from ppd_env.uris import parse_uri


@pytest.fixture(scope="module")
def mini():
    return load_segmenter("mini")


@pytest.fixture(scope="module")
def scene():
    return open_source("shapes://val?count=1&seed=0")[0]


def test_the_weights_are_small():
    assert WEIGHTS.stat().st_size <= 8e6


def test_an_image_is_encoded_once_for_embedding_and_features(mini, scene, monkeypatch):
    calls = []
    forward = mini.network.encoder.forward
    monkeypatch.setattr(mini.network.encoder, "forward", lambda x: (calls.append(1), forward(x))[1])
    image = scene.image.copy()
    mini.embed(image)
    load_features("mini").extract(image, 16)
    assert len(calls) == 1
    image[:40] = 255
    mini.embed(image)
    assert len(calls) == 2


def test_the_cached_first_layer_equals_a_fresh_one(mini, scene):
    """A mask prompt of no effect takes the path without cached keys and values, and must change nothing."""
    network = mini.network
    embedding = mini.embed(scene.image)
    points, labels = torch.tensor([[[60.0, 80.0], [200.0, 30.0]]]), torch.tensor([[1, 0]])
    cached, _ = mini.decode(embedding, points, labels)
    last = network.decoder.mask_stem[-1]
    weight, bias = last.weight.data.clone(), last.bias.data.clone()
    try:
        last.weight.data.zero_()
        last.bias.data.copy_(network.decoder.no_mask)
        fresh, _ = mini.decode(embedding, points, labels, torch.zeros(1, 1, mini.low_res, mini.low_res))
    finally:
        last.weight.data.copy_(weight)
        last.bias.data.copy_(bias)
    torch.testing.assert_close(fresh, cached, atol=1e-4, rtol=1e-4)


def test_the_order_of_points_does_not_matter(mini, scene):
    embedding = mini.embed(scene.image)
    points, labels = torch.rand(1, 6, 2) * 256, torch.tensor([[1, 0, 1, 0, 0, 1]])
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    first, _ = mini.decode(embedding, points, labels)
    second, _ = mini.decode(embedding, points[:, order], labels[:, order])
    torch.testing.assert_close(first, second, atol=2e-4, rtol=1e-4)


def ideal_statuses(bank):
    scenes = enumerate(zip(bank.truth.numpy(), bank.peak.tolist(), strict=True))
    drawn = [ideal_prompts(truth, peak, np.random.default_rng([7, row])) for row, (truth, peak) in scenes]
    return torch.from_numpy(np.stack(drawn))


def test_right_prompts_segment_and_wrong_signs_break_the_mask():
    bank = open_bank("shapes://val?count=24&seed=0", "mini", "mini", 16)
    simulator, rows = Simulator(bank, load_segmenter("mini")), torch.arange(24)
    status = ideal_statuses(bank)
    swapped = torch.where(status > 0, 3 - status, 0).to(torch.int8)
    assert simulator.segment(rows, status).dice.mean() > 0.7
    assert simulator.segment(rows, swapped).dice.mean() < 0.3


def test_clicks_where_the_mask_is_wrong_improve_it():
    bank = open_bank("shapes://val?count=24&seed=0", "mini", "mini", 16)
    simulator, rows = Simulator(bank, load_segmenter("mini")), torch.arange(24)
    status = torch.zeros_like(ideal_statuses(bank))
    status[rows, bank.peak] = 1
    reached = []
    for _ in range(5):
        found = simulator.segment(rows, status)
        reached.append(float(found.dice.mean()))
        error = (simulator.feedback(rows, found.logits) - bank.truth.float()).abs() * (status == 0)
        worst = error.argmax(dim=1)
        status[rows, worst] = torch.where(bank.truth[rows, worst], 1, 2).to(torch.int8)
    assert reached[0] > 0.65
    assert reached[-1] > reached[0] + 0.02


def test_features_tell_the_target_from_its_surroundings():
    bank = open_bank("shapes://val?count=24&seed=0", "mini", "mini", 16)
    inside, across = [], []
    for row in range(24):
        mine, other = bank.features[row][bank.truth[row]], bank.features[row][~bank.truth[row]]
        if len(mine) > 1:
            inside.append(torch.pdist(mine).mean())
            across.append(torch.cdist(mine, other).mean())
    assert torch.stack(inside).mean() < 0.9 * torch.stack(across).mean()
    assert 0.5 < torch.stack(across).mean() < 2


@pytest.mark.parametrize("size", [(40, 90), (300, 20), (256, 256), (1, 7)])
@pytest.mark.parametrize("grid", [4, 16, 23])
def test_features_of_any_size_and_grid(size, grid):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    features = load_features("mini").extract(image, grid)
    assert features.shape == (grid * grid, load_features("mini").dim)
    assert features.isfinite().all()


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "mini.safetensors"
    path.write_bytes(WEIGHTS.read_bytes()[:5000])
    with pytest.raises(ConfigError, match=r"mini\.safetensors"):
        load_mini(parse_uri(f"mini:{path}"), torch.device("cpu"))


def test_foreign_weights_are_refused(tmp_path, mini):
    path = tmp_path / "other.safetensors"

    def refusal(config="{}", scales="[0.1, 0.2, 0.3]", name="encoder.nothing"):
        save_file({name: torch.zeros(3)}, path, metadata={"config": config, "feature_scales": scales})
        with pytest.raises(ConfigError, match="other") as refused:
            load_mini(parse_uri(f"mini:{path}"), torch.device("cpu"))
        return str(refused.value)

    assert "not weights of this architecture" in refusal()
    assert "1 feature scales instead of 3" in refusal(scales="[0.1]")
    assert "name a file the training wrote" in refusal(config="{")


def test_a_missing_file_and_unknown_keys_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.safetensors"):
        load_mini(parse_uri(f"mini:{tmp_path}/gone.safetensors"), torch.device("cpu"))
    with pytest.raises(ConfigError, match="colour"):
        load_mini(parse_uri("mini?colour=red"), torch.device("cpu"))
