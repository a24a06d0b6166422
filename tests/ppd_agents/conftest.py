"""A small made-up world for the learner's tests: no images, no network weights, no disk."""

from functools import partial

import numpy as np
import pytest
import torch
from colour_agent import Colour, agent, half_bright
from small_learner import small_model

from ppd_agents.defender import Defender
from ppd_env.features.registry import load_features
from ppd_env.scenes.bank import build_bank
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator


@pytest.fixture(scope="session")
def small_simulator():
    """Twelve procedural scenes on an 8 x 8 grid with the fake segmenter."""
    segmenter = load_segmenter("fake")
    bank = build_bank("shapes://train?count=12&seed=3", segmenter, load_features("fake"), 8, cache=False)
    return Simulator(bank, segmenter)


@pytest.fixture
def image():
    return half_bright()


@pytest.fixture
def defender():
    return Defender(agent(Colour))


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def random_state(rng):
    """A function that makes B random states of N nodes in d-dimensional features."""
    from ppd_agents.dqn.graph_state import GraphState

    def make(batch=5, grid=6, dim=4, scenes=3, density=0.3, feedback=False):
        nodes = grid * grid
        axis = (torch.arange(grid) + 0.5) / grid
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        features = torch.from_numpy(rng.normal(size=(scenes, nodes, dim))).float() / dim**0.5
        status = np.where(rng.random((batch, nodes)) < density, rng.integers(1, 3, (batch, nodes)), 0)
        status[:, 0] = 1
        return GraphState(
            features,
            torch.stack([x.flatten(), y.flatten()], 1),
            torch.from_numpy(rng.integers(scenes, size=batch)),
            torch.from_numpy(status.astype(np.int8)),
            torch.from_numpy(rng.random((batch, nodes))).float() if feedback else None,
            torch.from_numpy(rng.random(batch)).float() if feedback else None,
        )

    return make


@pytest.fixture
def make_model(small_simulator):
    return partial(small_model, small_simulator)
