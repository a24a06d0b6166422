import pytest
import torch
from tiny_training import tiny

from ppd_agents.training.adversarial import Alternation, train_adversarial
from ppd_env.errors import ConfigError


def test_the_defender_alone_learns_on_after_the_last_round(tmp_path, monkeypatch):
    before, after = (
        train_adversarial(
            tiny(rounds=1, rehearsals=4, final_updates=updates, final_rehearsals=0), tmp_path / str(updates)
        )
        for updates in (0, 6)
    )

    def weights(result, role):
        return torch.cat([p.flatten() for p in getattr(result, role).network.parameters()])

    assert weights(before, "attacker").equal(weights(after, "attacker"))
    changed = {
        name.split(".")[0]
        for (name, old), new in zip(
            before.defender.network.state_dict().items(),
            after.defender.network.state_dict().values(),
            strict=True,
        )
        if not old.equal(new)
    }
    assert changed == {"doubt", "doubt_telling", "doubt_landmark_telling"}
    assert len(after.history) == len(before.history) == after.defender.notes["rounds"] == 1
    monkeypatch.setattr(Alternation, "_learn", None)  # calling it fails
    again = train_adversarial(tiny(rounds=1, rehearsals=4, final_rehearsals=0), tmp_path / "6", resume=True)
    assert weights(again, "defender").equal(weights(after, "defender"))


class AnyAttacks:
    def sample(self, size, rng):
        return None


def doubt_of(net):
    return net.network.doubt[0][0].weight


@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_in_final_updates_the_target_follows_as_slowly_as_in_training(tmp_path, tau):
    config = tiny(rounds=1, rehearsals=4, tau=tau, target_update=2, gradient_steps=3)  # once in six updates
    model = Alternation(config, tmp_path).learners["defender"].model
    first, follower = doubt_of(model.q_net), doubt_of(model.q_net_target)
    moved = []

    def step(*_):
        moved.append(follower.detach().flatten()[0].item())
        first.data += 1.0
        first.grad = torch.zeros_like(first)

    model.suspicion_losses = lambda _: []
    model._descend = step
    model.attacks = AnyAttacks()
    begin = first.detach().flatten()[0].item()
    model.study(8, 0.1)
    after = [value - begin for value in moved]
    if tau == 1:
        assert after[:6] == pytest.approx([0] * 6, abs=1e-6)
        assert after[6:] == pytest.approx([6, 6], abs=1e-5)
    else:
        assert after[1] == pytest.approx(0.05, abs=1e-5)


def test_the_learning_rate_of_the_final_updates_falls_to_nothing(tmp_path):
    model = Alternation(tiny(rounds=1, rehearsals=4), tmp_path).learners["defender"].model
    rates = []

    def step(*_):
        rates.append(model.policy.optimizer.param_groups[0]["lr"])
        doubt_of(model.q_net).grad = torch.zeros_like(doubt_of(model.q_net))

    model.suspicion_losses, model.attacks, model._descend = lambda _: [], AnyAttacks(), step
    model.study(4, 0.8)
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert model._n_updates == 4


def test_the_final_updates_learn_from_the_trained_attacker_alone(tmp_path):
    training = Alternation(tiny(rounds=2, rehearsals=4, final_rehearsals=3, final_updates=1), tmp_path)
    for _ in range(2):
        training.play_round()
    assert training.attacks.count == 8
    training.finish()
    assert training.attacks.count == 12
    assert training.attacks.pos == 12


def test_without_remembered_attacks_there_is_nothing_to_study(tmp_path):
    training = Alternation(tiny(rounds=1, final_updates=9), tmp_path)
    training.play_round()
    assert training.finished
    with pytest.raises(ConfigError, match="suspicion"):
        training.learners["defender"].model.study(1, 0.1)
