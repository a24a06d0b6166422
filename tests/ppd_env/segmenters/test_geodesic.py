"""Geodesic distances to prompts: what they measure, and that they stop at edges."""

import pytest
import torch

from ppd_env.segmenters.mini import geodesic
from ppd_env.segmenters.mini.geodesic import GeodesicDistance, edge_strength

DIM, SIDE = 8, 16


def costs_of(edges):
    """Costs where the encoder has learned nothing yet."""
    batch, _, side, _ = edges.shape
    module = GeodesicDistance(DIM)
    side8 = torch.randn(batch, DIM // 4, side // 2, side // 2)
    return module, module.costs(edges, side8, torch.randn(batch, DIM // 8, side, side))


def distances(edges, cells, labels):
    module, costs = costs_of(edges)
    nearer, positive, negative = module(costs, torch.tensor([cells]), torch.tensor([labels]))[0].detach()
    step = float(module.length.detach().exp())
    return nearer, positive.expm1() / 4 / step, negative.expm1() / 4 / step


def test_on_a_plain_image_ways_are_counted_in_cells():
    _, positive, _ = distances(torch.zeros(1, 1, SIDE, SIDE), [3 * SIDE + 5], [1])
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    torch.testing.assert_close(positive, ((row - 3).abs() + (column - 5).abs()).float(), atol=1e-2, rtol=1e-4)


def test_the_nearest_prompt_of_each_sign_counts():
    nearer, positive, negative = distances(torch.zeros(1, 1, SIDE, SIDE), [0, 15, 240], [1, 0, 0])
    assert positive[0, 2] == pytest.approx(2, abs=0.01)
    assert negative[0, 2] == pytest.approx(13, abs=0.01)
    assert negative[14, 0] == pytest.approx(1, abs=0.01)
    assert nearer[0, 2] > 0.5
    assert nearer[14, 0] < -0.5


def test_an_edge_stops_what_plain_ground_carries():
    edges = torch.zeros(1, 1, SIDE, SIDE)
    edges[..., 4] = 5.0
    nearer, _, _ = distances(edges, [8 * SIDE + 1, 8 * SIDE + 15], [1, 0])
    assert (nearer[:, :4] > 0).all()
    assert (nearer[:, 5:] < 0).all()


def test_a_way_leads_through_a_gap():
    edges = torch.zeros(1, 1, SIDE, SIDE)
    edges[..., 4] = 5.0
    edges[:, :, 0, 4] = 0.0
    _, positive, _ = distances(edges, [8 * SIDE + 1], [1])
    assert positive[8, 6] == pytest.approx(8 + 5 + 8, abs=0.1)


def test_an_absent_sign_is_far_from_everywhere_and_absent_points_are_nowhere():
    nearer, positive, negative = distances(torch.zeros(1, 1, SIDE, SIDE), [7, 100], [1, -1])
    assert (nearer > 0.9).all()
    assert (negative > 10 * positive.max()).all()
    alone = distances(torch.zeros(1, 1, SIDE, SIDE), [7], [1])
    torch.testing.assert_close(positive, alone[1])


def test_both_ways_of_computing_agree(monkeypatch):
    module, costs = costs_of(torch.rand(3, 1, 12, 12))
    costs = costs.detach()
    cells, labels = torch.randint(0, 144, (3, 6)), torch.randint(-1, 2, (3, 6))
    small = module(costs, cells, labels)
    monkeypatch.setattr(geodesic, "_PARALLEL", 0)
    torch.testing.assert_close(module(costs, cells, labels), small)


def test_what_the_encoder_learns_reaches_the_costs():
    module = GeodesicDistance(DIM)
    side4 = torch.randn(1, DIM // 8, SIDE, SIDE)
    costs = module.costs(torch.rand(1, 1, SIDE, SIDE), torch.randn(1, DIM // 4, 8, 8), side4)
    module(costs, torch.tensor([[3, 200]]), torch.tensor([[1, 0]]))[:, 0].square().sum().backward()
    assert module.from_side4.weight.grad.abs().sum() > 0
    assert module.edges.grad.abs() > 0


def test_edges_lie_where_colours_change():
    pixels = torch.full((1, 3, 64, 64), 40.0)
    assert edge_strength(pixels).abs().max() < 1e-6
    pixels[..., 32:] = 200.0
    strength = edge_strength(pixels)[0, 0]
    assert strength.shape == (16, 16)
    assert (strength[:, 7:9] > 1).all()
    assert (strength[:, :6] < 1e-6).all()
    assert (strength[:, 10:] < 1e-6).all()
