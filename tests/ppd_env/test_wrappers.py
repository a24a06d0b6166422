"""Graph observations."""

import gymnasium as gym
import numpy as np
import pytest

from ppd_env.errors import ConfigError
from ppd_env.wrappers import GraphObservation


def test_graphs_hold_the_dual_space_graph(tiny_kwargs):
    env = gym.make("PPD-v0", **tiny_kwargs)
    wrapped = GraphObservation(env)
    graph, info = wrapped.reset(seed=0)
    plain = env.unwrapped.play.observer.observe(
        env.unwrapped.play.games, env.unwrapped.play.games.everyone(), None
    )
    assert wrapped.observation_space.contains(graph)
    assert graph.nodes.shape == (36, 3 + 2 + 3)
    assert np.array_equal(graph.nodes[:, -3:].argmax(axis=1), plain["status"][0])
    assert np.array_equal(graph.edge_links.T, plain["edge_index"][0])
    distance = np.linalg.norm(
        graph.nodes[graph.edge_links[:, 0], 3:5] - graph.nodes[graph.edge_links[:, 1], 3:5], axis=1
    )
    assert np.allclose(graph.edges[:, 1], distance, atol=1e-6)
    assert info["action_mask"].any()


@pytest.mark.parametrize("kwargs", [{"edges": "dense"}, {"edges": "none"}, {"observation": "compact"}])
def test_graphs_need_edges(tiny_kwargs, kwargs):
    with pytest.raises(ConfigError, match="edges='knn'"):
        GraphObservation(gym.make("PPD-v0", **tiny_kwargs, **kwargs))
