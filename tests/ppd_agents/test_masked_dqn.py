import numpy as np
import pytest
import torch
from small_learner import GAMES
from stable_baselines3.common.logger import Logger

from ppd_agents.dqn.exploration import EpsilonSchedule, refuse_illegal
from ppd_agents.dqn.masked_dqn import MaskedDQN
from ppd_agents.dqn.q_network import QNetworkConfig
from ppd_env.errors import ConfigError, PPDError


def prefer_illegal(network, monkeypatch):
    """Make a network value illegal actions far above legal ones."""

    def forward(observation, dice_only=False):
        illegal = observation["action_mask"].float() < 0.5
        return illegal * 1000.0 + torch.linspace(-1, 1, illegal.shape[1])

    monkeypatch.setattr(network, "forward", forward)


def legal(model, actions):
    masks = model._last_obs["action_mask"].astype(bool)
    return masks[np.arange(len(actions)), actions].all()


@pytest.mark.parametrize("role", ["attacker", "defender"])
def test_the_other_roles_games_are_refused(make_model, role):
    other = "defender" if role == "attacker" else "attacker"
    model = make_model(role, network=QNetworkConfig(role=other, hidden=8))
    with pytest.raises(ConfigError, match=f"The games are the {role}'s.*role='{role}'"):
        model.learn(GAMES)


def test_a_pickled_memory_is_taken_up_again(make_model, tmp_path):
    model = make_model(branches=1)
    model.learn(GAMES * 2, log_interval=None)
    model.save_replay_buffer(tmp_path / "memory")
    other = make_model(branches=1)
    other.load_replay_buffer(tmp_path / "memory")
    assert other.replay_buffer.size() == model.replay_buffer.size() > GAMES
    assert other.replay_buffer.rng is other.rng
    other.rng.bit_generator.state = model.rng.bit_generator.state
    mine, its = (one.replay_buffer.sample(16) for one in (model, other))
    assert torch.equal(mine.actions, its.actions)
    other.learn(GAMES, log_interval=None, reset_num_timesteps=False)


def test_warm_up_draws_legal_actions_only(make_model):
    model = make_model()
    for _ in range(5):
        actions, _ = model._sample_action(learning_starts=10_000, n_envs=GAMES)
        assert legal(model, actions)


def test_the_epsilon_branch_draws_legal_actions_only(make_model):
    model = make_model()
    model.exploration_rate = 1.0
    for _ in range(5):
        actions, _ = model._sample_action(learning_starts=0, n_envs=GAMES)
        assert legal(model, actions)
        actions, _ = model.predict(model._last_obs)
        assert legal(model, actions)
    assert len(np.unique(actions)) > 1


def test_the_greedy_choice_is_legal(make_model, monkeypatch):
    model = make_model()
    model.exploration_rate = 0.0
    prefer_illegal(model.q_net, monkeypatch)
    actions, _ = model._sample_action(learning_starts=0, n_envs=GAMES)
    assert legal(model, actions)
    actions, _ = model.predict(model._last_obs, deterministic=True)
    assert legal(model, actions)
    one = {key: value[0] for key, value in model._last_obs.items()}
    action, _ = model.predict(one, deterministic=True)
    assert one["action_mask"][action] == 1


@pytest.mark.parametrize("double", [False, True])
def test_the_target_looks_at_legal_actions_only(make_model, monkeypatch, double):
    model = make_model(gamma=0.9, double=double, branches=4, reward_scale=2.0)
    model.learn(GAMES * 4, log_interval=None)
    for network in (model.q_net, model.q_net_target):
        prefer_illegal(network, monkeypatch)
    data = model.replay_buffer.sample(64)
    targets = model.targets(data)
    masks = data.next_observations["action_mask"]
    values = torch.linspace(-1, 1, masks.shape[1]).expand(masks.shape)
    best = torch.where(masks, values, -9.0).amax(1, keepdim=True)
    expected = 2.0 * data.rewards + (1 - data.dones) * 0.9 * best
    torch.testing.assert_close(targets, expected)


def test_double_dqn_lets_the_online_network_choose(make_model, monkeypatch):
    model = make_model(gamma=1.0, double=True, branches=4)
    model.learn(GAMES * 2, log_interval=None)
    count = model.action_space.n
    rising, falling = torch.linspace(-1, 1, count), torch.linspace(1, -1, count)
    monkeypatch.setattr(
        model.q_net, "forward", lambda o, dice_only=False: rising.expand(len(o["status"]), count)
    )
    monkeypatch.setattr(
        model.q_net_target, "forward", lambda o, dice_only=False: falling.expand(len(o["status"]), count)
    )
    data = model.replay_buffer.sample(32)
    masks = data.next_observations["action_mask"]
    chosen = torch.where(masks, rising, -9.0).argmax(1, keepdim=True)
    expected = 10.0 * data.rewards + (1 - data.dones) * falling.expand(32, count).gather(1, chosen)
    torch.testing.assert_close(model.targets(data), expected)


def test_the_online_network_chooses_without_dropout(make_model, monkeypatch):
    model = make_model(gamma=0.9, double=True, branches=2)
    model.learn(GAMES * 2, log_interval=None)
    modes = []
    forward = type(model.q_net).forward

    def spy(network, observation, **options):
        modes.append(network.training)
        return forward(network, observation, **options)

    monkeypatch.setattr(type(model.q_net), "forward", spy)
    model.train(2, 16)
    assert modes == [False] * 4  # the online network chooses and the target network values, twice


def test_a_target_that_chooses_and_values_alike_looks_once(make_model, monkeypatch):
    """Every candidate of the next state is valued: what costs most of a gradient step on a large grid."""
    model = make_model(gamma=0.9, branches=2)
    model.learn(GAMES * 2, log_interval=None)
    asked = []
    forward = type(model.q_net).forward

    def spy(network, observation, **options):
        asked.append(network)
        return forward(network, observation, **options)

    monkeypatch.setattr(type(model.q_net), "forward", spy)
    model.train(2, 16)
    assert asked == [model.q_net_target] * 2


def test_returns_of_several_steps_count_every_reward_and_discount_what_follows(make_model, monkeypatch):
    model = make_model(gamma=0.5, n_step=3, reward_scale=2.0, steps=4, hold=True, allow_stop=False)
    model.learn(GAMES * 4, log_interval=None)
    worth = torch.linspace(-1, 1, model.action_space.n)
    monkeypatch.setattr(
        model.q_net_target, "forward", lambda o, dice_only=False: worth.expand(len(o["status"]), -1)
    )
    simulator, data = model.env.games.simulator, model.replay_buffer.sample(200)
    status, after = data.observations["status"], data.next_observations["status"]
    removed = (status != after).sum(1)
    assert sorted(removed.unique().tolist()) == [1, 2, 3]
    assert torch.equal(data.discounts[:, 0], 0.5**removed)
    best = torch.where(data.next_observations["action_mask"], worth, -9.0).amax(1, keepdim=True)
    expected = 2.0 * data.rewards + (1 - data.dones) * data.discounts * best
    torch.testing.assert_close(model.targets(data), expected)
    once = removed == 1
    rows = data.observations["scene"][once]
    dice = [simulator.segment(rows, given[once]).dice for given in (status, after)]
    torch.testing.assert_close(data.rewards[once, 0], dice[1] - dice[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("options", "other"), [({"loss": "mse"}, {}), ({"huber_delta": 0.01}, {})])
def test_the_loss_is_the_one_asked_for(make_model, options, other):
    logged = []
    for chosen in (options, other):
        model = make_model("attacker", learning_starts=10**6, branches=3, reward_scale=10.0, **chosen)
        model.learn(GAMES * 2, log_interval=None)
        model.train(1, 64)
        logged.append(model.logger.name_to_value["train/loss"])
    assert logged[0] != pytest.approx(logged[1], rel=0.1)


def test_priorities_follow_the_errors_of_the_last_look(make_model):
    model = make_model(
        "attacker", prioritised=True, branches=2, learning_rate=0.0, epsilon=EpsilonSchedule(10)
    )
    model.learn(GAMES * 4, log_interval=None)
    assert model.replay_buffer.store.count == GAMES * 4 * 3
    assert model.progress == 0
    model.epsilon.advance(5)
    assert model.progress == 0.5
    model.train(60, 32)
    data = model.replay_buffer.sample(32, beta=0.4)
    with torch.no_grad():
        errors = model.targets(data) - model.q_net.q_of(data.observations, data.actions)
    mean = errors.abs().view(-1, 3).mean(1)
    store = model.replay_buffer.store
    kept = store.arrays["priorities"][data.drawn.starts]
    assert np.corrcoef(kept, mean)[0, 1] > 0.5  # dropout differs from look to look
    before = {name: a.copy() for name, a in store.arrays.items()}
    model.gradient_steps = 1
    model.train(1, 32)
    changed = [name for name, a in store.arrays.items() if not np.array_equal(a, before[name])]
    assert changed == ["priorities"]


def test_importance_weights_reach_the_loss(make_model, monkeypatch):
    model = make_model("attacker", prioritised=True, branches=2)
    model.learn(GAMES * 2, log_interval=None)
    asked, given = [], []
    sample, loss = model.replay_buffer.sample, model.loss
    monkeypatch.setattr(
        model.replay_buffer, "sample", lambda size, beta: asked.append(beta) or sample(size, beta=beta)
    )
    model.loss = lambda found, wanted, weights: given.append(weights) or loss(found, wanted, weights)
    model._current_progress_remaining = 0.5
    model.train(20, 32)
    assert asked == pytest.approx([0.7] * 20)
    assert min(weights.min() for weights in given) < 1


def test_options_of_the_memory_need_the_memory(small_simulator, make_model):
    model = make_model()
    from stable_baselines3.common.buffers import DictReplayBuffer

    for options in ({"n_step": 2}, {"prioritised": True}):
        with pytest.raises(ConfigError, match="compact"):
            make_model(replay_buffer_class=DictReplayBuffer, **options)
    with pytest.raises(ConfigError, match="loss"):
        make_model(loss="l1")
    assert model.replay_buffer.n_step == 1


@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("prompts", [1, 4])
def test_every_discount_and_number_of_prompts_learns(make_model, gamma, prompts):
    options = {"n_step": 2, "prioritised": True, "double": True, "dueling": True, "prompts": prompts}
    model = make_model("attacker", gamma=gamma, branches=4, gradient_steps=2, tau=0.1, **options)
    model.target_update_interval = 1
    model.learn(GAMES * 8, log_interval=None)
    data = model.replay_buffer.sample(100)
    touched = (data.observations["status"] != data.next_observations["status"]).sum(1)
    assert touched.max() <= 2 * prompts
    assert touched.max() >= prompts
    targets = model.targets(data)
    assert torch.isfinite(targets).all()
    assert (targets >= data.rewards * 10 - 1e-6).all()  # never worse than to stop afterwards
    assert model._n_updates == 16


def test_a_discount_of_zero_learns_the_scaled_reward(make_model):
    model = make_model(gamma=0.0, reward_scale=7.0)
    model.learn(GAMES * 3, log_interval=None)
    data = model.replay_buffer.sample(16)
    torch.testing.assert_close(model.targets(data), data.rewards * 7.0)


def test_all_zero_masks_and_illegal_actions_are_refused(make_model):
    model = make_model()
    observation = {key: value.copy() for key, value in model._last_obs.items()}
    observation["action_mask"][2] = 0
    for deterministic in (True, False):
        with pytest.raises(PPDError, match="all zero"):
            model.predict(observation, deterministic=deterministic)
    masks = torch.from_numpy(model._last_obs["action_mask"]).bool()
    wrong = (~masks).int().argmax(1)
    with pytest.raises(PPDError, match="Illegal"):
        refuse_illegal(wrong, masks)
    with pytest.raises(PPDError, match="Illegal"):
        model.env.step_async(wrong.numpy())


def test_training_fits_the_one_step_worth_of_actions(make_model):
    model = make_model("attacker", branches=6, learning_rate=3e-3)
    model.learn(GAMES * 10, log_interval=None)
    data = model.replay_buffer.sample(300)

    def error():
        with torch.no_grad():
            found = model.q_net.q_of(data.observations, data.actions)
        return (found - model.targets(data)).square().mean().item()

    before = error()
    model.train(150, 64)
    assert error() < 0.7 * before


def test_feedback_reaches_the_network_and_the_replay(make_model):
    model = make_model("defender", feedback=True, branches=3, gamma=0.9)
    model.learn(GAMES * 4, log_interval=None)
    model.train(2, 32)
    data = model.replay_buffer.sample(200)
    simulator = model.env.games.simulator
    for observation in (data.observations, data.next_observations):
        seen = simulator.segment(observation["scene"], observation["status"])
        share = simulator.feedback(observation["scene"], seen.logits)
        assert (observation["feedback"] - share).abs().max() < 1 / 255
        torch.testing.assert_close(observation["predicted_iou"], seen.predicted_iou.clamp(0, 1))


def test_a_schedule_of_its_own_survives_several_calls_of_learn(make_model):
    schedule = EpsilonSchedule(100, 1.0, 0.0)
    model = make_model(epsilon=schedule)
    assert model.exploration_rate == 1.0
    for expected in (0.9, 0.8):
        schedule.advance(10)
        model.learn(GAMES * 2, log_interval=None, reset_num_timesteps=False)
        assert model.exploration_rate == pytest.approx(expected)


def test_same_seed_same_training_whatever_the_global_generators(make_model):
    def weights(seed):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        model = make_model(branches=3, gamma=0.5)
        model.learn(GAMES * 4, log_interval=None)
        return torch.cat([p.detach().flatten() for p in model.q_net.parameters()])

    assert torch.equal(weights(1), weights(2))


def test_it_goes_through_sb3s_own_file(make_model, tmp_path):
    model = make_model(branches=3, gamma=0.5)
    model.learn(GAMES * 3, log_interval=None)
    model.save(tmp_path / "model.zip")
    again = MaskedDQN.load(tmp_path / "model.zip", env=model.env, device="cpu")
    observation = model._last_obs
    assert np.array_equal(
        model.predict(observation, deterministic=True)[0], again.predict(observation, deterministic=True)[0]
    )
    assert again.replay_buffer.rng is again.rng
    again.set_logger(Logger(None, []))
    again.learn(GAMES * 2, log_interval=None)
    assert again.replay_buffer.size() > GAMES


def test_observations_without_a_mask_are_refused(make_model):
    model = make_model()
    space = model.observation_space
    from gymnasium import spaces

    from ppd_agents.dqn.policy import GraphPolicy

    with pytest.raises(ConfigError, match="action_mask"):
        GraphPolicy(spaces.Dict({"status": space["status"]}), model.action_space, lambda _: 1e-3)
