"""The examples of docs/extending.md work as the page says: from outside, by name, and to their contracts."""

import re
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import ppd_env  # noqa: F401 (registers PPD-v0)
from ppd_env.errors import ConfigError, SceneError
from ppd_env.features.contract import FeatureExtractor
from ppd_env.features.registry import load_features
from ppd_env.opponents import load_opponent
from ppd_env.scenes.scene import SceneSource
from ppd_env.scenes.sources import open_source
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.testing import check_mask_agreement, check_rollout_equality, check_telescoping

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "examples" / "extending"
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NAMES = ("my_segmenter", "my_features", "my_scenes", "my_opponent", "my_algorithm")


def scene(index, side=40):
    """A bright rectangle on dark noise, and where it is."""
    rng = np.random.default_rng(index)
    image = rng.integers(0, 60, (side, side, 3), dtype=np.uint8)
    mask = np.zeros((side, side), bool)
    top, left = rng.integers(4, 12, 2)
    mask[top : top + 20, left : left + 18] = True
    image[mask] += np.array([150, 120, 60], np.uint8)
    return image, mask


@pytest.fixture
def examples(monkeypatch, tmp_path, fresh_sources):
    """The examples can be imported, and scenes.npz lies where we are; its last scene cannot be used."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.chdir(tmp_path)
    images, masks = zip(*(scene(index) for index in range(6)), strict=True)
    masks = np.stack(masks)
    masks[-1] = False
    np.savez("scenes.npz", images=np.stack(images), masks=masks)
    yield
    for name in NAMES:
        sys.modules.pop(name, None)


def test_the_page_includes_every_example():
    included = re.findall(r'--8<-- "docs/examples/extending/(\w+)\.py"', PAGE)
    assert included == list(NAMES)
    assert {path.stem for path in FOLDER.glob("*.py")} == set(NAMES)


@pytest.mark.filterwarnings("ignore:1 of 6 scenes")
def test_the_pages_snippets_run(examples, capsys):
    assert len(SNIPPETS) == 2
    together = {}
    exec(compile(SNIPPETS[0], "docs/extending.md", "exec"), together)
    env = together["env"]
    assert env.reset(seed=0)[0]["features"].shape == (64, 6)
    check_telescoping(env)
    check_mask_agreement(env)
    exec(compile(SNIPPETS[1], "docs/extending.md", "exec"), {})
    learned, at_random = re.fullmatch(r"(\S+) against (\S+) at random\n", capsys.readouterr().out).groups()
    assert float(learned) > float(at_random)


@pytest.mark.filterwarnings("ignore:1 of 6 scenes")
def test_equal_seeds_play_equal_games(examples):
    kwargs = {"scenes": "my_scenes:load?file=scenes.npz", "features": "my_features:load", "grid": 6}
    check_rollout_equality(
        lambda: gymnasium.make("PPD-v0", segmenter="fake", opponent="my_opponent:load?nearest=3", **kwargs)
    )


def test_the_segmenter_separates_what_it_is_told_to(examples):
    segmenter = load_segmenter("my_segmenter:load?contrast=4")
    assert segmenter is load_segmenter("my_segmenter:load?contrast=4")
    image, mask = scene(0)
    ys, xs = np.nonzero(mask)
    inside, outside = [float(xs.mean()), float(ys.mean())], [1.0, 1.0]
    points = torch.tensor([[inside, outside]])
    logits, _ = segmenter.decode(segmenter.embed(image), points, torch.tensor([[1, 0]]))
    found = torch.nn.functional.interpolate(logits, size=mask.shape)[0, 0].numpy() > 0
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.9
    with pytest.raises(ConfigError, match="unknown key 'contrst'"):
        load_segmenter("my_segmenter:load?contrst=4")


def test_the_features_keep_the_contract(examples):
    features = load_features("my_features:load")
    assert isinstance(features, FeatureExtractor)
    described = features.extract(scene(0)[0], 5)
    assert (described.shape, described.dtype) == ((25, features.dim), torch.float32)
    assert torch.isfinite(described).all()
    middle, corner = described[12], described[0]
    assert (middle - corner).norm() > 3 * (described[4] - corner).norm()


def test_the_scenes_keep_the_contract(examples):
    source = open_source("my_scenes:load?file=scenes.npz")
    assert isinstance(source, SceneSource)
    assert len(source) == 6
    assert np.array_equal(source[2].mask, scene(2)[1])
    with pytest.raises(SceneError, match="its mask is empty"):
        source[5]
    with pytest.raises(SceneError, match=r"nowhere\.npz"):
        open_source("my_scenes:load?file=nowhere.npz")


def test_the_opponent_contradicts(examples, make_games):
    games = make_games(attacking=True)
    opponent = load_opponent("my_opponent:load")
    which = games.everyone()
    actions = opponent.act(games, which, [np.random.default_rng(0)] * len(which))
    assert games.legal()[which, actions].all()
    assert (actions >= games.nodes).all()
    assert (actions < 2 * games.nodes).all()


@pytest.mark.parametrize(
    ("load", "what"),
    [(load_segmenter, "Segmenter"), (load_features, "FeatureExtractor"), (open_source, "SceneSource")],
)
def test_what_cannot_be_imported_or_is_something_else_is_a_sentence(examples, load, what):
    with pytest.raises(
        ConfigError, match=r"cannot be imported: .*no_such_module.* Known without an import: "
    ):
        load("no_such_module:load")
    with pytest.raises(ConfigError, match="cannot be imported"):
        load("my_scenes:no_such_name")
    with pytest.raises(ConfigError, match=rf"tuple does not have all that .*{what} asks for"):
        load(f"{__name__}:something_else")


def something_else(*arguments):
    """No loader: it returns what it is given."""
    return arguments
