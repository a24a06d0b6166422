"""What must hold for the Q-network whatever its shape and the state."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ppd_agents.dqn.graph_state import GraphState
from ppd_agents.dqn.q_network import GraphQNetwork, QNetworkConfig
from ppd_agents.shipped import open_agent
from ppd_env.game.actions import legal_actions

quick = settings(deadline=None, max_examples=12)
ROLES = ("attacker", "defender")
DIM = 3


def make_state(seed, grid, batch=2, active=6, dim=DIM, scenes=2):
    """Random states with feedback, an initial mask and removed prompts; at most ``active`` are present."""
    rng = np.random.default_rng(seed)
    nodes = grid * grid
    axis = (torch.arange(grid) + 0.5) / grid
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    status = np.zeros((batch, nodes), np.int8)
    for row in status:
        row[rng.permutation(nodes)[: rng.integers(active + 1)]] = rng.integers(1, 3)
        row[rng.integers(nodes)] = 2
    return GraphState(
        torch.from_numpy(rng.normal(size=(scenes, nodes, dim))).float(),
        torch.stack([x.flatten(), y.flatten()], dim=1),
        torch.from_numpy(rng.integers(scenes, size=batch)),
        torch.from_numpy(status),
        torch.from_numpy(rng.random((batch, nodes))).float(),
        torch.from_numpy(rng.random(batch)).float(),
        torch.from_numpy(rng.random((batch, nodes)) < 0.4),
        torch.from_numpy(np.where(rng.random(status.shape) < 0.2, 1, status).astype(np.int8)),
    )


@st.composite
def networks(draw, **given):
    """A small network of any shape, in evaluation mode; ``given`` fixes some of its fields."""
    config = {
        "role": st.sampled_from(ROLES),
        "messages": st.sampled_from([0, 3]),
        "landmarks": st.sampled_from([0, 2]),
        "raw_features": st.sampled_from([0, DIM]),
        "use_positions": st.booleans(),
        "use_feedback": st.booleans(),
        "use_initial_mask": st.booleans(),
        "dueling": st.booleans(),
        "layers": st.integers(1, 2),
        "members": st.integers(1, 2),
    }
    drawn = {name: draw(values) for name, values in config.items() if name not in given}
    fields = drawn | given
    fields["landmarks"] = fields["landmarks"] if fields["messages"] else 0
    suspicion = draw(st.sampled_from([0.0, 0.3])) if fields["role"] == "defender" else 0.0
    shape = QNetworkConfig(hidden=8, suspicion=suspicion, **fields)
    return GraphQNetwork(shape, torch.Generator().manual_seed(draw(st.integers(0, 99)))).eval()


def states(**given):
    return st.builds(make_state, st.integers(0, 2**31), st.integers(3, 6), **given)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("dueling", [False, True])
def test_relabelling_the_nodes_relabels_the_values(role, dueling):
    @quick
    @given(networks(role=role, dueling=dueling), states(), st.integers(0, 2**31))
    def holds(net, state, seed):
        nodes = state.status.shape[1]
        order = torch.from_numpy(np.random.default_rng(seed).permutation(nodes))
        moved = GraphState(
            state.features[:, order],
            state.positions[order],
            state.rows,
            state.status[:, order],
            state.feedback[:, order],
            state.predicted_iou,
            state.initial_mask[:, order],
            state.seen[:, order],
        )
        columns = torch.cat([order, order + nodes, torch.tensor([2 * nodes])])
        torch.testing.assert_close(net(moved), net(state)[:, columns], atol=1e-5, rtol=1e-4)

    holds()


@quick
@given(networks(), states())
def test_stop_is_worth_exactly_nothing_and_no_other_is(net, state):
    values = net(state)
    assert (values[:, -1] == 0).all()
    stop = torch.full((len(state.rows),), values.shape[1] - 1)
    assert (net.q_of(state, stop) == 0).all()
    legal = legal_actions(state.status, torch.full((len(stop),), net.config.role == "attacker"))
    assert (values[:, :-1][legal[:, :-1]] != 0).any() or not legal[:, :-1].any()


@quick
@given(networks(), states(), st.integers(0, 2**31))
def test_chosen_actions_have_the_values_of_the_full_answer(net, state, seed):
    legal = legal_actions(state.status, torch.full((2,), net.config.role == "attacker"))
    rng = np.random.default_rng(seed)
    actions = torch.stack([torch.from_numpy(rng.choice(row.nonzero().flatten().numpy(), 3)) for row in legal])
    expected = net(state).gather(1, actions)
    torch.testing.assert_close(net.q_of(state, actions), expected, atol=1e-5, rtol=1e-4)
    again = state.at(torch.tensor([0, 0, 0, 1]))
    flat = torch.cat([actions[0], actions[1, :1]])
    wanted = torch.cat([expected[0], expected[1, :1]])
    torch.testing.assert_close(net.q_of(again, flat), wanted, atol=1e-5, rtol=1e-4)


def change_inactive(state, seed):
    """Move a node of the first state that was never a prompt elsewhere in both spaces; return it too."""
    rng = np.random.default_rng(seed)
    node = int(rng.choice((state.evidence.status[0] == 0).nonzero().flatten().numpy()))
    features, positions = state.features.clone(), state.positions.clone()
    features[:, node] += 5 + torch.from_numpy(rng.normal(size=features.shape[-1])).float()
    positions[node] = torch.from_numpy(rng.random(2)).float()
    return node, replace(state, features=features, positions=positions)


@quick
@given(networks(landmarks=0), states(batch=st.just(1)), st.integers(0, 2**31))
def test_an_inactive_node_is_nobodys_business(net, state, seed):
    node, changed = change_inactive(state, seed)
    before, after = net(state)[0], net(changed)[0]
    nodes = state.status.shape[1]
    own = torch.zeros(len(before), dtype=torch.bool)
    own[[node, node + nodes]] = True
    if net.config.role == "defender":
        assert torch.equal(before, after)
        return
    assert not torch.equal(before[own], after[own])
    if net.config.dueling:
        # The candidate counts in the mean that is taken off all of them: only differences stay.
        rest = ~own[:-1]
        torch.testing.assert_close(
            (after - before)[:-1][rest],
            (after - before)[:-1][rest][0].expand(int(rest.sum())),
            atol=1e-5,
            rtol=0,
        )
    else:
        assert torch.equal(before[~own], after[~own])


@quick
@given(networks(dueling=True), states(), st.integers(0, 2**31))
def test_legal_values_average_to_the_worth_of_the_state(net, state, seed):
    legal = legal_actions(state.status, torch.full((2,), net.config.role == "attacker"))[:, :-1]
    means = (net(state, dice_only=True)[:, :-1] * legal).sum(1) / legal.sum(1).clamp_min(1)
    seen = []
    hooks = [
        worth.register_forward_hook(lambda _, __, out: seen.append(out.flatten())) for worth in net.worth
    ]
    net(state, dice_only=True)
    worth = torch.stack(seen).mean(0)
    for hook in hooks:
        hook.remove()
    # Advantages alone, shifted, change nothing.
    for trunk in net.trunk:
        trunk[-1].bias += 3.0
    shifted = net(state, dice_only=True)
    some = legal.any(1)
    torch.testing.assert_close(means[some], worth[some], atol=1e-5, rtol=1e-4)
    values = (shifted[:, :-1] * legal).sum(1) / legal.sum(1).clamp_min(1)
    torch.testing.assert_close(values[some], means[some], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("dueling", [False, True])
def test_the_same_weights_run_on_any_grid_and_any_extractor(role, dueling):
    net = GraphQNetwork(QNetworkConfig(role=role, hidden=8, dueling=dueling)).eval()
    for grid, dim in ((8, 2), (16, 7), (24, 5), (64, 12)):
        values = net(make_state(1, grid, dim=dim))
        assert values.shape == (2, 2 * grid * grid + 1)
        assert torch.isfinite(values).all()


def test_finer_grids_give_the_same_prompts_nearly_the_same_values():
    net = open_agent("mini", "defender").network.eval()  # an untrained one values all states nearly alike
    found = []
    for grid in (8, 16, 64):
        state = make_state(0, grid, batch=1)
        places = torch.tensor([[0.2, 0.2], [0.6, 0.3], [0.7, 0.8], [0.3, 0.6], [0.9, 0.1]])
        nodes = torch.cdist(places, state.positions).argmin(1)
        state.positions[nodes] = places
        status = torch.zeros_like(state.status)
        status[0, nodes] = torch.tensor([1, 2, 1, 1, 1], dtype=torch.int8)
        smooth = torch.cat([state.positions, state.positions.prod(1, keepdim=True)], dim=1)
        values = net(replace(state, status=status, seen=None, features=smooth.expand(2, -1, -1)))[0]
        found.append(values[nodes + grid * grid * torch.tensor([0, 1, 0, 0, 0])])
    steps = [(b - a).abs().max().item() for a, b in pairwise(found)]
    assert max(steps) < 0.3 * (found[0].max() - found[0].min())


class Largest(TorchDispatchMode):
    """Keeps the number of elements of the largest tensor any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                # An expanded view takes no memory of its own.
                held = leaf.untyped_storage().nbytes() // leaf.element_size()
                self.elements = max(self.elements, min(held, leaf.numel()))
        return out


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("landmarks", [0, 8])
def test_no_tensor_is_as_large_as_all_pairs_of_nodes(role, dueling, landmarks):
    inputs = {"raw_features": DIM, "use_positions": True, "use_feedback": True}
    config = QNetworkConfig(role=role, hidden=8, dueling=dueling, landmarks=landmarks, **inputs)
    net, nodes = GraphQNetwork(config).eval(), 64 * 64
    state = make_state(0, 64, batch=1, active=0, scenes=1)
    state.status[0, :40] = 1
    count = int((state.status > 0).sum())
    with Largest() as largest:
        net(state)
        net.q_of(state, torch.zeros(1, dtype=torch.int64))
    # Every candidate of the attacker looks at every prompt and landmark, once for each cell of its histogram;
    # of what the defender sees only the given state, and where landmarks are chosen, is as long as the grid.
    told = max(count, landmarks**2)
    bound = nodes * told * config.bins.size if role == "attacker" else nodes * max(16, landmarks**2)
    assert largest.elements <= bound < nodes * nodes
