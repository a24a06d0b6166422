"""Pixels that count neither way, from the mask's file to the score."""

import numpy as np
import pytest
import torch
from PIL import Image

from ppd_agents.evaluation.rows import ideal_statuses
from ppd_agents.evaluation.scoring import Scorer
from ppd_env.envs.gymnasium_env import PointPromptEnv
from ppd_env.errors import ConfigError, SceneError
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE
from ppd_env.metrics import batch_dice, dice, iou
from ppd_env.prompting import ideal_prompts, matching_prompts, patch_coverage
from ppd_env.scenes import reading, sources
from ppd_env.scenes.bank import build_bank
from ppd_env.scenes.patches import nodes_inside
from ppd_env.scenes.reading import MaskRule, read_pair
from ppd_env.scenes.scene import RawScene
from ppd_env.scenes.sources import open_source
from ppd_env.segmenters.letterbox import low_res_mask, low_res_truth
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator

HEIGHT, WIDTH, GRID = 40, 60, 6


def masks():
    """An object with a void border of 4 pixels, and a void corner."""
    mask, void = np.zeros((HEIGHT, WIDTH), bool), np.zeros((HEIGHT, WIDTH), bool)
    void[6:34, 6:44] = True
    mask[10:30, 10:40] = True
    void &= ~mask
    void[:, 52:] = True
    return mask, void


class VoidSource:
    """Two scenes of the same picture, the second of which has no void pixels."""

    signature = "void-1"

    def __init__(self, uri):
        self.uri = uri.text

    def __len__(self):
        return 2

    def __getitem__(self, index):
        mask, void = masks()
        image = np.random.default_rng(0).integers(0, 90, (HEIGHT, WIDTH, 3), np.uint8)
        image[mask] += 120
        return RawScene(f"scene-{index}", image, mask, f"scene-{index}", void if index == 0 else None)


@pytest.fixture
def bank(monkeypatch, tmp_path):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sources.OPENERS, "void", VoidSource)
    monkeypatch.setattr(sources, "_opened", {})
    from ppd_env.features.fake import FakeFeatures

    return build_bank("void://", load_segmenter("fake"), FakeFeatures(), GRID)


def write(folder, values):
    Image.fromarray(np.zeros((*values.shape, 3), np.uint8)).save(folder / "image.png")
    Image.fromarray(values).save(folder / "mask.png")
    return folder / "image.png", folder / "mask.png"


def test_a_rule_may_name_a_void_value(tmp_path):
    mask, void = masks()
    values = mask * np.uint8(7) + void * np.uint8(255)
    paths = write(tmp_path, values)
    for rule in (
        MaskRule(void=255),
        MaskRule(category=7, void=255),
        MaskRule(threshold=5, void=255),
    ):
        pair = read_pair(*paths, rule)
        np.testing.assert_array_equal(pair.mask, mask)
        np.testing.assert_array_equal(pair.void, void)
    assert read_pair(*paths, MaskRule(category=7)).void is None
    with pytest.raises(SceneError, match="3 values"):
        read_pair(*paths, MaskRule())
    with pytest.raises(SceneError, match="empty mask"):
        read_pair(*write(tmp_path, np.full((4, 4), 255, np.uint8)), MaskRule(threshold=5, void=255))


def test_void_is_scaled_down_with_its_image(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_SIDE", 30)
    mask, void = masks()
    pair = read_pair(*write(tmp_path, mask * np.uint8(1) + void * np.uint8(255)), MaskRule(void=255))
    assert pair.image.shape[:2] == pair.mask.shape == pair.void.shape == (20, 30)
    np.testing.assert_array_equal(pair.mask, mask[::2, ::2])
    np.testing.assert_array_equal(pair.void, void[::2, ::2])


def test_folders_take_a_void_value(tmp_path):
    mask, void = masks()
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    Image.fromarray(mask * np.uint8(3) + void * np.uint8(200)).save(tmp_path / "masks" / "a.png")
    np.testing.assert_array_equal(open_source(f"folder://{tmp_path}?void=200")[0].void, void)
    with pytest.raises(ConfigError, match="two values"):
        open_source(f"folder://{tmp_path}?class=3&void=3")


def test_void_pixels_change_no_score():
    mask, void = masks()
    rng = np.random.default_rng(1)
    prediction = rng.random(mask.shape) < 0.5
    for score in (dice, iou):
        value = score(prediction, mask, void)
        assert value == score(prediction & ~void, mask)
        assert value == score(prediction | void, mask, void) == score(prediction, mask | void, void)
        assert value != score(prediction | void, mask)
    assert dice(mask | void, mask, void) == 1.0
    with pytest.raises(ValueError, match="shape"):
        dice(prediction, mask, void[1:])
    with pytest.raises(ValueError, match="bool"):
        dice(prediction, mask, void.astype(np.uint8))


def test_low_resolution_cells_are_judged_by_their_known_pixels():
    mask, void = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    mask[:4, 0] = True  # cell (0, 0): 1/4 object, 2/4 void: half of what is known
    void[:4, 2:4] = True
    void[:4, 4:] = True  # cell (0, 1): void
    mask[4:, 4] = True  # cell (1, 1): 1/4 object, nothing void
    target, left_out = low_res_truth(mask, void, 2)
    assert target.tolist() == [[True, False], [False, False]]
    assert left_out.tolist() == [[False, True], [False, False]]
    target, left_out = low_res_truth(mask, None, 2)
    np.testing.assert_array_equal(target, low_res_mask(mask, 2))
    assert not left_out.any()


def test_a_small_object_in_a_wide_void_is_still_the_target():
    mask, void = np.zeros((16, 16), bool), np.ones((16, 16), bool)
    mask[5, 5] = True
    void[5, 5] = False
    target, left_out = low_res_truth(mask, void, 4)
    assert target.sum() == 1
    assert target[1, 1]
    assert left_out.sum() == 15


def test_the_bank_knows_what_counts(bank):
    mask, void = masks()
    np.testing.assert_array_equal(bank.void[0], nodes_inside(void, GRID))
    assert bank.void[0].any()
    assert not bank.void[1].any()
    assert torch.equal(bank.counted[1], bank.valid[1])
    _, left_out = low_res_truth(mask, void, bank.target.shape[-1])
    assert torch.equal(bank.counted[0], bank.valid[0] & ~torch.from_numpy(left_out))
    assert 0 < bank.counted[0].sum() < bank.valid[0].sum()
    assert torch.equal(bank.valid[0], bank.valid[1])
    assert not (bank.target & ~bank.counted).any()


def test_rewards_and_tables_leave_void_out(bank):
    simulator = Simulator(bank, load_segmenter("fake"))
    status = torch.full((2, GRID * GRID), INACTIVE, dtype=torch.int8)
    status[:, 14], status[:, 35] = POSITIVE, POSITIVE  # one on the object, one in the void corner
    rows = torch.arange(2)
    found = simulator.segment(rows, status)
    assert torch.equal(found.logits[0], found.logits[1])
    assert torch.equal(found.dice, batch_dice(found.logits > 0, bank.target, bank.counted))
    assert found.dice[0] != found.dice[1]
    scored = Scorer(simulator).stage({1: status}).at(1)
    mask, void = masks()
    (native, _) = simulator.native_masks(rows, status)
    assert scored[1].tolist() == [100 * dice(native, mask, void), 100 * dice(native, mask)]
    assert scored[2].tolist() == [100 * iou(native, mask, void), 100 * iou(native, mask)]


def test_no_ideal_prompt_lies_in_void(bank):
    generators = [np.random.default_rng(seed) for seed in range(2)]
    truth, void = bank.truth[0].numpy(), bank.void[0].numpy()
    for seed in range(20):
        status = ideal_prompts(truth, int(bank.peak[0]), np.random.default_rng(seed), void=void)
        assert (status[void] == INACTIVE).all()
        assert (status == POSITIVE).any()
        plain = ideal_prompts(truth, int(bank.peak[0]), np.random.default_rng(seed))
        np.testing.assert_array_equal(status[~void], plain[~void])
    first, second = ideal_statuses(bank, generators)
    assert not (first[bank.void[0]] != INACTIVE).any()
    assert (second[bank.void[0]] == NEGATIVE).any()


def test_episodes_start_without_prompts_in_void(bank, monkeypatch):
    monkeypatch.setattr("ppd_env.scenes.bank._opened", {("void://", "fake", "fake", GRID, "cpu"): bank})
    env = PointPromptEnv(scenes="void://", segmenter="fake", features="fake", grid=GRID, role="attacker")
    void = bank.void[0].numpy()
    for seed in range(5):
        observation, _ = env.reset(seed=seed, options={"scene": 0, "start": "ideal"})
        assert (observation["status"][void] == INACTIVE).all()


def test_patches_of_a_reference_that_hold_void_do_not_vote():
    mask, void = np.zeros((4, 8), bool), np.zeros((4, 8), bool)
    mask[:2, :2], void[:2, 2:3], void[2:, :2] = True, True, True
    coverage = patch_coverage(mask, 4, void)  # patches of 1 x 2 pixels
    assert coverage[0] == 1
    assert 0 < coverage[1] < 0.01
    assert coverage[2] == 0
    features = torch.arange(16.0)[:, None]
    status = matching_prompts(features, coverage, features)
    assert status.tolist() == [1, 0, 2, 2, 1, 0, 2, 2, 0, 2, 2, 2, 0, 2, 2, 2]
