"""What every test may use: a scene source of four small made-up images, and the games on it."""

import os
import signal

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start what runs in their background deaf to Ctrl-C, and every process of a test would be born so.
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
import torch

from ppd_env.game_batch import GameBatch
from ppd_env.scenes import sources
from ppd_env.scenes.bank import open_bank
from ppd_env.scenes.scene import RawScene
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator

SIZES = ((40, 60), (64, 64), (90, 30), (48, 48))
GRID = 6


class TinySource:
    """``tiny://``: bright rectangles on dark noise, of different sizes and shapes."""

    signature = "tiny-1"

    def __init__(self, uri):
        self.uri = uri.text

    def __len__(self):
        return len(SIZES)

    def __getitem__(self, index):
        height, width = SIZES[index]
        rng = np.random.default_rng(index)
        image = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        mask = np.zeros((height, width), bool)
        mask[height // 4 : height // 2 + 4, width // 4 : width // 2 + 8] = True
        image[mask] += np.array([150, 120, 60], np.uint8)
        return RawScene(f"tiny-{index}", image, mask, group=f"tiny-{index}")


sources.OPENERS["tiny"] = TinySource


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory):
    """Keep the tests' scene banks out of the user's cache."""
    before = os.environ.get("PPD_CACHE")
    os.environ["PPD_CACHE"] = str(tmp_path_factory.mktemp("ppd-cache"))
    yield
    if before is None:
        del os.environ["PPD_CACHE"]
    else:
        os.environ["PPD_CACHE"] = before


@pytest.fixture
def two_threads():
    """Let torch use two threads, however many cores there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_kwargs():
    """Environment arguments for quick, weightless games."""
    return {"scenes": "tiny://", "segmenter": "fake", "features": "fake", "grid": GRID}


@pytest.fixture(scope="session")
def tiny_simulator(private_cache):
    bank = open_bank("tiny://", "fake", "fake", GRID)
    return Simulator(bank, load_segmenter("fake"), max_batch=5)


@pytest.fixture
def make_games(tiny_simulator):
    """A function that begins ``size`` games from random prompts; every second one attacks."""

    def make(size=8, steps=6, density=0.3, attacking=None, seed=0, **kwargs):
        generator = torch.Generator().manual_seed(seed)
        games = GameBatch(tiny_simulator, size, **kwargs)
        nodes = games.nodes
        rows = torch.arange(size) % len(tiny_simulator.bank)
        active = torch.rand(size, nodes, generator=generator) < density
        signs = torch.randint(1, 3, (size, nodes), generator=generator)
        status = torch.where(active, signs, 0).to(torch.int8)
        status[:, 0] = 1
        role = torch.arange(size) % 2 == 0 if attacking is None else torch.full((size,), attacking)
        games.begin(games.everyone(), rows, status, torch.full((size,), steps), role)
        return games

    return make


@pytest.fixture
def decodes(monkeypatch):
    """How many prompt sets each decode batch held."""
    sizes, segment = [], Simulator.segment

    def record(self, rows, status):
        sizes.append(len(rows))
        return segment(self, rows, status)

    monkeypatch.setattr(Simulator, "segment", record)
    return sizes


@pytest.fixture
def fresh_sources(monkeypatch, tmp_path):
    """No scenes are opened yet, and the cache is empty."""
    monkeypatch.setattr(sources, "_opened", {})
    monkeypatch.setenv("PPD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    """A folder for a set of images."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder
