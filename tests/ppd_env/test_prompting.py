"""Initial prompts."""

import numpy as np
import pytest
import torch

from ppd_env.errors import ConfigError
from ppd_env.prompting import ideal_prompts, matching_prompts, noise_prompts, patch_coverage

GRID = 16
TRUTH = np.zeros((GRID, GRID), bool)
TRUTH[4:12, 3:9] = True
TRUTH = TRUTH.ravel()


@pytest.mark.parametrize("layout", ["jittered", "lattice"])
def test_ideal_prompts_agree_with_the_truth(layout):
    for seed in range(20):
        status = ideal_prompts(TRUTH, 100, np.random.default_rng(seed), layout)
        assert status.dtype == np.int8
        assert TRUTH[status == 1].all()
        assert not TRUTH[status == 2].any()
        assert (status == 1).any()


def test_jittered_prompts_are_one_per_cell_less_a_dropped_share():
    shares, strides = [], set()
    for seed in range(200):
        nodes = np.flatnonzero(ideal_prompts(np.ones(GRID * GRID, bool), 0, np.random.default_rng(seed)))
        rows, columns = np.divmod(nodes, GRID)
        cells = {stride: (-(-GRID // stride)) ** 2 for stride in (3, 4, 5)}
        fitting = {
            stride: len(nodes) / count
            for stride, count in cells.items()
            if len(set(zip(rows // stride, columns // stride, strict=True))) == len(nodes)
            and 0.68 * count <= len(nodes) <= count
        }
        assert fitting
        if len(fitting) == 1:
            strides |= set(fitting)
            shares += fitting.values()
    assert strides == {3, 4, 5}
    assert min(shares) < 0.75
    assert max(shares) > 0.95


def test_jittered_prompts_reach_every_node():
    seen = np.zeros(GRID * GRID, bool)
    for seed in range(300):
        seen |= ideal_prompts(TRUTH, 100, np.random.default_rng(seed)) > 0
    assert seen.all()


def test_the_peak_stands_in_for_an_object_between_the_nodes():
    status = ideal_prompts(np.zeros(GRID * GRID, bool), 37, np.random.default_rng(0))
    assert np.flatnonzero(status == 1).tolist() == [37]


def test_the_lattice_is_fixed():
    status = ideal_prompts(TRUTH, 100, np.random.default_rng(0), "lattice")
    rows, columns = np.divmod(np.flatnonzero(status), GRID)
    assert set(rows) == set(columns) == {2, 6, 10, 14}


def test_unknown_layouts_are_errors():
    with pytest.raises(ConfigError, match="hexagonal"):
        ideal_prompts(TRUTH, 0, np.random.default_rng(0), "hexagonal")


def test_noise_prompts():
    for seed in range(50):
        status = noise_prompts(256, np.random.default_rng(seed))
        assert 8 <= (status > 0).sum() <= 32
        assert (status == 1).any()
    assert (noise_prompts(9, np.random.default_rng(0)) == 1).any()


def test_coverage():
    mask = np.zeros((8, 4), bool)
    mask[:4, :2] = True
    mask[4, 0] = True
    assert patch_coverage(mask, 2).tolist() == [1.0, 0.0, 0.125, 0.0]


def test_matching_gives_signs_to_the_nearest_patches():
    reference = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    target = torch.tensor([[2.1], [0.1], [9.0], [3.2]])
    status = matching_prompts(reference, np.array([1.0, 0.5, 0.0, 0.0]), target)
    # Patch 0 is foreground and nearest to target 1; patch 1 straddles; 2 and 3 are background.
    assert status.tolist() == [2, 1, 0, 2]


def test_contested_targets_get_no_prompt():
    reference, target = torch.tensor([[0.0], [0.2], [5.0]]), torch.tensor([[0.1], [5.0]])
    assert matching_prompts(reference, np.array([1.0, 0.0, 1.0]), target).tolist() == [0, 1]


def test_a_tiny_reference_object_still_votes():
    reference, target = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]])
    assert matching_prompts(reference, np.array([0.4, 0.0]), target).tolist() == [1, 2]


def test_the_last_row_and_column_take_part():
    nodes = torch.arange(9.0)[:, None]
    status = matching_prompts(nodes, np.array([0.0] * 8 + [1.0]), nodes)
    assert status.tolist() == [2] * 8 + [1]
