import pytest

from ppd_agents.training.best import WINDOW, score


def rounds(*pairs):
    """Records of rounds in which the attack cost ``harm`` and the defender won ``back``."""
    return [
        {"attacker/dice_before": 0.9, "defender/dice_before": 0.9 - harm, "defender/return": back}
        for harm, back in pairs
    ]


def test_the_score_is_the_share_of_harm_taken_back_in_the_last_rounds():
    last = [(0.4, 0.2), (0.4, 0.2), (0.02, 0.02), (0.4, 0.2), (0.4, -0.1)]
    assert len(last) == WINDOW
    assert score(rounds(*last)) == pytest.approx(0.52 / 1.62)
    assert score(rounds((0.9, -0.9), *last)) == score(rounds(*last))
    assert score(rounds(*last[1:])) is None
    assert score(rounds(*[(0.04, 0.04)] * WINDOW)) is None
