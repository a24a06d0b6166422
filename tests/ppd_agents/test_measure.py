"""Rows are played in pieces of scenes, and an interrupted one goes on behind its last piece."""

import numpy as np
import pytest
import torch

from ppd_agents.evaluation import measure, stages
from ppd_agents.evaluation.measure import Pass, measure_scenes
from ppd_agents.evaluation.rows import Draw, Turn, replays
from ppd_agents.evaluation.settings import EvaluationConfig

FIVE = "shapes://test?count=5&seed=1"
CONFIG = EvaluationConfig(scenes=(FIVE,), segmenter="fake", features="fake", grid=8, budgets=(1, 2))
START = Draw(lambda scorer, rngs: torch.ones(len(rngs), 64, dtype=torch.int8), 0)


@pytest.fixture(autouse=True)
def pieces_of_two(monkeypatch):
    monkeypatch.setattr(measure, "_PIECE", 2)


class Scribe:
    """Draws signs from each scene's generator, and is stopped at a scene where it is told to."""

    def __init__(self, stop_at=None):
        self.stop_at, self.played = stop_at, []

    def __call__(self, simulator, rows, status, budgets, rngs, progress):
        if self.stop_at in rows.tolist():
            raise KeyboardInterrupt
        self.played.append(rows.tolist())
        drawn = torch.from_numpy(np.stack([rng.integers(0, 3, 64, np.int8) for rng in rngs]))
        return {budget: torch.where(torch.arange(64) < budget, drawn, status) for budget in budgets}


def play(mover, folder):
    rows = {"ideal": START, "moved": Turn("ideal", mover, 5)}
    return measure_scenes(FIVE, CONFIG, [Pass(0, rows, "a", folder)]).rows["moved"][0].status


def test_an_interrupted_row_goes_on_behind_its_last_piece(tmp_path):
    scribe = Scribe()
    whole = play(scribe, tmp_path / "whole")
    assert scribe.played == [[0, 1], [2, 3], [4]]
    with pytest.raises(KeyboardInterrupt):
        play(Scribe(stop_at=3), tmp_path / "cut")
    scribe = Scribe()
    again = play(scribe, tmp_path / "cut")
    assert scribe.played == [[2, 3], [4]]
    for budget in (1, 2):
        assert np.array_equal(again[budget], whole[budget])
        assert len(np.unique(again[budget][:, 0])) > 1
    assert not list((tmp_path / "cut").glob("*from=*"))
    scribe = Scribe()
    play(scribe, tmp_path / "cut")
    assert scribe.played == []


def test_what_was_stored_under_other_rules_is_computed_again(tmp_path, monkeypatch):
    kept = stages.ArrayStore(tmp_path, "key")
    kept.write("row", {"dice": np.ones(2)})
    assert stages.ArrayStore(tmp_path, "key").read("row") is not None
    monkeypatch.setattr(stages, "RULES", stages.RULES + 1)
    assert stages.ArrayStore(tmp_path, "key").read("row") is None


def test_pieces_are_not_kept_without_a_folder():
    scribe = Scribe()
    play(scribe, None)
    assert scribe.played == [[0, 1], [2, 3], [4]]


def test_replayed_prompts_are_those_of_the_scenes():
    prompts = {budget: np.arange(5 * 64, dtype=np.int64).reshape(5, 64) % (budget + 2) for budget in (1, 2)}
    prompts = {budget: each.astype(np.int8) for budget, each in prompts.items()}
    found = play(replays(prompts), None)
    assert all(np.array_equal(found[budget], prompts[budget]) for budget in (1, 2))
