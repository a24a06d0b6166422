"""Distances and edges of the dual-space graph."""

import pytest
import torch

from ppd_env.graph import feature_distance, knn_edges, physical_distance


def test_distances():
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    expected = torch.tensor([[0.0, 5.0, 0.0], [5.0, 0.0, 5.0], [0.0, 5.0, 0.0]])
    assert torch.equal(feature_distance(features), expected)
    assert torch.equal(physical_distance(features[None])[0], expected)


def test_edges_join_the_nearest_of_each_space():
    feature = feature_distance(torch.tensor([[0.0], [1.0], [3.0], [7.0]]))
    physical = physical_distance(torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 0.1], [0.5, 0.1]]))
    index, attr = knn_edges(feature, physical, neighbours=1)
    pairs = set(zip(*index.tolist(), strict=True))
    assert pairs == {(1, 0), (2, 0), (0, 1), (3, 1), (1, 2), (0, 2), (2, 3), (1, 3)}
    assert torch.equal(attr[:, 0], feature[index[1], index[0]])
    assert torch.equal(attr[:, 1], physical[index[1], index[0]])


def test_batches_and_sizes():
    features = torch.rand(2, 16, 5, generator=torch.Generator().manual_seed(0))
    positions = torch.rand(16, 2, generator=torch.Generator().manual_seed(1)).expand(2, -1, -1)
    index, attr = knn_edges(feature_distance(features), physical_distance(positions))
    assert index.shape == (2, 2, 16 * 16)
    assert attr.shape == (2, 16 * 16, 2)
    assert (index[:, 0] != index[:, 1]).all()
    alone, _ = knn_edges(feature_distance(features[1]), physical_distance(positions[1]))
    assert torch.equal(alone, index[1])


def test_equal_distances_go_to_the_lower_index():
    same = torch.ones(4, 4)
    index, _ = knn_edges(same, same, neighbours=1)
    assert index[0].view(4, 2).tolist() == [[1, 1], [0, 0], [0, 0], [0, 0]]


def test_too_small_a_grid():
    with pytest.raises(ValueError, match="larger grid"):
        knn_edges(torch.ones(4, 4), torch.ones(4, 4))
