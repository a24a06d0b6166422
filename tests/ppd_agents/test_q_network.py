from dataclasses import replace

import numpy as np
import pytest
import torch

from ppd_agents.dqn.descriptors import Bins, active_set, describe, survey
from ppd_agents.dqn.hearing import landmark_set
from ppd_agents.dqn.q_network import GraphQNetwork, QNetworkConfig
from ppd_agents.dqn.suspicion import removal_worth
from ppd_env.errors import ConfigError

ROLES = ("attacker", "defender")


def network(role="attacker", **options):
    config = QNetworkConfig(role=role, hidden=24, **options)
    return GraphQNetwork(config, torch.Generator().manual_seed(1)).eval()


def full(role, **extra):
    return network(role, raw_features=4, use_positions=True, use_feedback=True, **extra)


@pytest.mark.parametrize("role", ROLES)
def test_stop_is_worth_nothing(role, random_state):
    assert (network(role)(random_state())[:, -1] == 0).all()
    state = random_state()
    assert (network(role).q_of(state, torch.full((5,), 72)) == 0).all()


@pytest.mark.parametrize("role", ROLES)
def test_chosen_actions_have_the_values_of_the_full_answer(role, random_state):
    state, net = random_state(feedback=True), full(role)
    values = net(state)
    status = state.status
    for sign in (1, 2):
        if role == "attacker":
            nodes = torch.arange(3).expand(5, 3)
        else:
            nodes = (status == sign).int().argmax(1, keepdim=True)
        actions = nodes + 36 * (sign - 1)
        torch.testing.assert_close(net.q_of(state, actions), values.gather(1, actions), atol=1e-5, rtol=1e-4)
    flat = (status == 1).int().argmax(1)
    assert net.q_of(state, flat).shape == (5,)


def test_the_defender_values_active_candidates_by_their_own_sign(random_state):
    state = random_state()
    values = network("defender")(state)
    active = torch.cat([state.status == 1, state.status == 2], 1)
    assert (values[:, :-1][~active] == 0).all()
    assert (values[:, :-1][active] != 0).all()


@pytest.mark.parametrize("grid", [4, 9])
def test_it_runs_on_any_grid(grid, random_state):
    assert network()(random_state(grid=grid)).shape == (5, 2 * grid * grid + 1)


def test_a_batch_is_valued_as_its_states_one_by_one(random_state):
    net = full("defender")
    state = random_state(batch=4, feedback=True)
    whole = net(state)
    for index in range(4):
        alone = net(state.at(slice(index, index + 1)))
        torch.testing.assert_close(alone[0], whole[index], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("role", ROLES)
def test_a_state_without_prompts_has_finite_dueling_values(role, random_state):
    state, net = random_state(batch=2, feedback=True), full(role, dueling=True)
    state.status.zero_()
    assert torch.isfinite(net(state)).all()
    assert net(state.at(slice(0, 0))).shape == (0, 73)
    assert (net(state)[:, -1] == 0).all()


def test_equal_neighbours_are_looked_at_once_and_valued_the_same(random_state, monkeypatch):
    state, net = random_state(batch=4), network()
    repeated = state.at(torch.tensor([0, 0, 0, 1, 2, 2, 3, 0]))
    actions = torch.arange(16).view(8, 2)
    expected = net(repeated).gather(1, actions)
    seen = []
    original = GraphQNetwork._look

    def spy(self, given, nodes, active):
        seen.append(len(given.rows))
        return original(self, given, nodes, active)

    monkeypatch.setattr(GraphQNetwork, "_look", spy)
    torch.testing.assert_close(net.q_of(repeated, actions), expected, atol=1e-5, rtol=1e-4)
    assert seen == [5]


def test_prompts_tell_their_neighbours_what_they_see(random_state):
    state = random_state(batch=1, density=0.3)
    with_messages, without = network(), network(messages=0)
    far, near = (state.status[0] > 0).nonzero()[[-1, 1], 0]
    changed = replace(state, status=state.status.clone())
    changed.status[0, far] = 3 - changed.status[0, far]
    for net in (with_messages, without):
        # A prompt's sign is seen directly; what is seen of it through others needs messages.
        assert not torch.equal(net(changed)[0, near], net(state)[0, near])
    told = []
    hook = with_messages.telling[0].register_forward_hook(lambda _, __, out: told.append(out[0]))
    with_messages(state)
    with_messages(changed)
    hook.remove()
    assert (told[0] != told[1]).any(dim=-1).all()


def test_dropout_acts_in_training_only(random_state):
    state, net = random_state(), network(dropout=0.5)
    assert torch.equal(net(state), net(state))
    assert not torch.equal(net.train()(state), net(state))


def test_large_batches_are_cut_and_joined(random_state, monkeypatch):
    state, net = random_state(batch=6), network()
    whole = net(state)
    monkeypatch.setattr("ppd_agents.dqn.q_network.chunks", lambda n, *_: [slice(0, 4), slice(4, n)])
    torch.testing.assert_close(net(state), whole, atol=1e-6, rtol=1e-5)


def test_histograms_count_each_prompt_once_in_its_cell():
    bins = Bins(feature=3, feature_scale=1.0, feature_ratio=2.0, physical=2, physical_scale=1.0)
    features = torch.tensor([[[0.0], [1.0], [3.0], [2**0.5 - 1]]])
    positions = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    status = torch.tensor([[1, 1, 2, 2]], dtype=torch.int8)
    active, node = active_set(status), torch.tensor([[0]])
    around = survey(features, positions, torch.tensor([0]), node, active, bins)
    found = describe(around, status, node, active)[0, 0]
    positive, negative = found[: bins.size], found[2 * bins.size + 4 : 3 * bins.size + 4]
    # The other positive one: feature distance 1, physical distance 1. The node itself: nowhere.
    assert torch.allclose(positive.expm1().view(3, 2), torch.tensor([[0.0, 0], [0, 1], [0, 0]]), atol=1e-5)
    # The negative ones lie on it: one in the last bin, one half way between the first two.
    expected = torch.tensor([[0.5, 0], [0.5, 0], [1, 0]])
    assert torch.allclose(negative.expm1().view(3, 2), expected, atol=1e-5)


def test_a_state_without_prompts_is_valued(random_state):
    state = random_state(batch=2)
    state.status.zero_()
    assert torch.isfinite(network()(state)).all()
    assert (network("defender")(state) == 0).all()


def test_no_matrix_over_all_pairs_of_nodes_is_formed(random_state, monkeypatch):
    sizes = []
    original = torch.baddbmm

    def spy(*args, **kwargs):
        out = original(*args, **kwargs)
        sizes.append(out.shape)
        return out

    monkeypatch.setattr(torch, "baddbmm", spy)
    state = random_state(batch=3, density=0.1)
    network()(state)
    most = int((state.status > 0).sum(1).max())
    assert sizes == [(3, 36, most), (3, most, most)]


def test_weights_come_from_the_generator_only():
    torch.manual_seed(5)
    first = network()
    torch.manual_seed(6)
    second = network()
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    other = GraphQNetwork(first.config, torch.Generator().manual_seed(2))
    assert not torch.equal(first.trunk[0][0].weight, other.trunk[0][0].weight)


def test_unknown_configuration_keys_are_errors():
    good = QNetworkConfig(role="defender", bins=Bins(feature=5)).to_json()
    assert QNetworkConfig.from_json(good) == QNetworkConfig(role="defender", bins=Bins(feature=5))
    with pytest.raises(ConfigError, match="depth"):
        QNetworkConfig.from_json(good | {"depth": 3})
    with pytest.raises(ConfigError, match="colour"):
        QNetworkConfig.from_json(good | {"bins": {"colour": 3}})
    with pytest.raises(ConfigError, match="role"):
        QNetworkConfig(role="judge")


def test_feedback_must_be_given_where_it_is_used(random_state):
    with pytest.raises(ConfigError, match="feedback"):
        network(use_feedback=True)(random_state())
    assert np.isfinite(network(use_feedback=True)(random_state(feedback=True)).detach().numpy()).all()


def test_an_estimate_beyond_its_range_counts_as_the_end_of_it(random_state):
    net, state = network(use_feedback=True), random_state(feedback=True)
    values = [
        net(replace(state, predicted_iou=torch.full_like(state.predicted_iou, estimate)))
        for estimate in (1.0, 1.3, 0.5)
    ]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


@pytest.mark.parametrize("dueling", [False, True])
def test_suspicion_is_a_part_of_the_value_of_its_own(random_state, dueling):
    state = random_state()
    config = QNetworkConfig(
        role="defender", hidden=16, dropout=0.0, suspicion=0.4, dueling=dueling, members=2
    )
    network = GraphQNetwork(config).eval()
    logits, active = network.suspicions(state)
    nodes = state.status.shape[1]
    columns = active.nodes + nodes * ~active.positive
    whole, dice = network(state), network(state, dice_only=True)
    gap = (whole - dice).gather(1, columns)[active.present]
    expected = 0.4 * removal_worth(logits, active.positive, active.present).mean(0)[active.present]
    torch.testing.assert_close(gap, expected)
    assert gap.abs().max() > 0
    assert (whole[:, -1] == 0).all()
    chosen = columns[:, 0]
    for only in (False, True):
        values = network(state, dice_only=only).gather(1, chosen[:, None])[:, 0]
        torch.testing.assert_close(network.q_of(state, chosen, dice_only=only), values)


@pytest.mark.parametrize("dueling", [False, True])
def test_members_learn_apart_and_judge_together(random_state, dueling):
    state = random_state()
    net = network(members=3, dueling=dueling)
    every = net.each(state)
    assert every.shape == (3, *net(state).shape)
    torch.testing.assert_close(every.mean(0), net(state))
    assert not torch.allclose(every[0], every[1])
    actions = torch.zeros(len(state.status), 2, dtype=torch.int64)
    actions[:, 1] = 2 * state.status.shape[1]
    apart = net.q_of(state, actions, each=True)
    torch.testing.assert_close(apart, every.gather(2, actions.expand(3, -1, -1)))
    torch.testing.assert_close(apart.mean(0), net.q_of(state, actions))
    apart[1].square().sum().backward()
    moved = [any(bool(p.grad.any()) for p in trunk.parameters()) for trunk in net.trunk]
    assert moved == [False, True, False]


def test_only_a_defender_is_suspicious(random_state):
    with pytest.raises(ConfigError, match="defender"):
        QNetworkConfig(role="attacker", suspicion=0.1)
    with pytest.raises(ConfigError, match="without suspicion"):
        GraphQNetwork(QNetworkConfig(role="defender", hidden=8)).suspicions(random_state())


def test_the_initial_mask_is_seen_by_its_node_and_by_the_prompts(random_state):
    state = random_state(batch=2)
    network = GraphQNetwork(QNetworkConfig(hidden=16, dropout=0.0, use_initial_mask=True)).eval()
    with pytest.raises(ConfigError, match="initial_mask"):
        network(state)
    dark = torch.zeros(state.status.shape, dtype=torch.bool)
    inactive = int((state.status[0] == 0).nonzero()[0])
    lit = dark.clone()
    lit[0, inactive] = True
    before, after = (network(replace(state, initial_mask=mask)) for mask in (dark, lit))
    assert not torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


@pytest.fixture
def suspicious():
    config = QNetworkConfig(role="defender", hidden=16, suspicion=0.5, landmarks=2)
    return GraphQNetwork(config, torch.Generator().manual_seed(3)).eval()


def test_a_removed_prompt_still_testifies(suspicious, random_state):
    began = random_state(batch=2)
    nodes = began.status.shape[1]
    status = began.status.clone()
    gone = int((status[0] == 2).nonzero()[-1])  # a positive one that goes makes the others dearer
    status[0, gone] = 0
    state = replace(began, status=status)
    bonus = {
        name: suspicious(seen) - suspicious(seen, dice_only=True)
        for name, seen in (
            ("before", began),
            ("remembered", replace(state, seen=began.status)),
            ("forgotten", state),
        )
    }
    rest = torch.ones(2 * nodes + 1, dtype=torch.bool)
    rest[[gone, gone + nodes]] = False
    torch.testing.assert_close(bonus["remembered"][:, rest], bonus["before"][:, rest])
    assert not torch.allclose(bonus["forgotten"][0, rest], bonus["before"][0, rest])
    assert (bonus["remembered"][0, ~rest] == 0).all()


def test_present_prompts_count_with_their_present_sign(random_state):
    state = random_state(batch=2)
    seen = torch.where(state.status == 1, 2, 1).to(torch.int8)
    evidence = replace(state, seen=seen).evidence.status
    assert evidence[state.status != 0].equal(state.status[state.status != 0])
    assert evidence[state.status == 0].equal(seen[state.status == 0])
    assert state.evidence is state


def test_landmarks_are_spread_and_may_be_no_prompts(random_state):
    state = random_state(batch=3, grid=8)
    found = landmark_set(state.positions, 4, 3)
    assert found.nodes.shape == (3, 16)
    assert len(found.nodes[0].unique()) == 16
    places = state.positions[found.nodes[0]]
    assert (torch.cdist(places, places) + torch.eye(16)).min() >= 0.25 - 1e-6
    net = GraphQNetwork(QNetworkConfig(hidden=16, landmarks=4), torch.Generator().manual_seed(1)).eval()
    node = next(n for n in found.nodes[0].tolist() if state.status[0, n] == 0)
    features = state.features.clone()
    features[state.rows[0], node] += 3.0
    before, after = net(state), net(replace(state, features=features))
    others = [n for n in range(64) if n != node]
    assert not torch.equal(before[0, others], after[0, others])


def test_landmarks_need_something_to_tell():
    with pytest.raises(ConfigError, match="landmarks"):
        QNetworkConfig(messages=0, landmarks=8)
    with pytest.raises(ConfigError, match="at least 0"):
        QNetworkConfig(landmarks=-1)
