import numpy as np
import torch
from tiny_training import tiny

from ppd_agents.training import bad_starts as module
from ppd_agents.training.adversarial import Alternation
from ppd_agents.training.bad_starts import KINDS, as_attack, bad_starts
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE


def draw(simulator, kind, seed=0):
    rows = torch.arange(len(simulator.bank))
    kinds = np.full(len(rows), kind)
    return rows, *bad_starts(simulator, rows, kinds, np.random.default_rng(seed))


def test_right_prompts_are_those_of_the_true_sign(small_simulator):
    for kind in KINDS:
        rows, status, right = draw(small_simulator, kind)
        truth = small_simulator.bank.truth[rows]
        assert (right[truth] != NEGATIVE).all()
        assert (right[~truth] != POSITIVE).all()
        gone = status != right
        assert (right[gone] == INACTIVE).all()
        assert torch.equal(gone, torch.where(truth, status == NEGATIVE, status == POSITIVE))
        assert gone.any()


def test_matching_is_right_more_often_than_noise(small_simulator):
    shares = {}
    for kind in KINDS:
        _, status, right = draw(small_simulator, kind)
        shares[kind] = (right != INACTIVE).sum().item() / (status != INACTIVE).sum().item()
    assert shares["matching"] > shares["noise"] + 0.1


def test_of_many_prompts_a_few_are_kept_one_of_them_positive(small_simulator, monkeypatch):
    for kind in KINDS:
        _, whole, _ = draw(small_simulator, kind)
        with monkeypatch.context() as patch:
            patch.setattr(module, "MOST_PROMPTS", 2)
            _, status, _ = draw(small_simulator, kind)
        counts = (whole != INACTIVE).sum(dim=1)
        assert counts.max() > 2
        assert torch.equal((status != INACTIVE).sum(dim=1), counts.clamp(max=2))
        assert torch.equal((status == POSITIVE).any(dim=1), (whole == POSITIVE).any(dim=1))


def test_an_attack_of_all_wrong_prompts_leads_back_to_the_start(small_simulator):
    _, status, right = draw(small_simulator, "noise")
    actions = as_attack(status, right, np.random.default_rng(1))
    nodes = status.shape[1]
    rebuilt = right.clone()
    for row, played in enumerate(actions):
        for action in played[played >= 0].tolist():
            assert rebuilt[row, action % nodes] == INACTIVE
            rebuilt[row, action % nodes] = POSITIVE if action < nodes else NEGATIVE
    assert torch.equal(rebuilt, status)
    assert ((actions < 0).int().diff(dim=1) >= 0).all()
    assert not torch.equal(actions, as_attack(status, right, np.random.default_rng(2)))


def test_a_defender_meets_them_and_remembers_them(tmp_path):
    config = tiny(rounds=1, rehearsals=8, noise_share=0.5, matching_share=0.5, steps=(3, 3))
    training = Alternation(config, tmp_path)
    training.run()
    env, truth = training.learners["defender"].env, training.simulator.bank.truth
    rows, kept = env.games.rows, env.reference
    assert torch.equal(kept == POSITIVE, (kept != INACTIVE) & truth[rows])
    assert training.attacks.count == 8  # those after the round: the others are forgotten
    assert training.history[0]["attacked_dice"] is None
