import numpy as np
import pytest

from ppd_agents.evaluation.statistics import MINIMUM_HARM, Bootstrap, change, recovery, summarise, way


def draws(groups, seeds=1, resamples=2000, seed=0):
    return Bootstrap.draw(groups, seeds, np.random.default_rng(seed), resamples)


def names(count):
    return [str(i) for i in range(count)]


def width(ends):
    return ends[1] - ends[0]


def rows(ideal, attacked, defended, random=50.0, oracle=5.0, count=30):
    shape = (1, count)
    values = {
        "ideal": ideal,
        "attack.learned": attacked,
        "defence.learned": defended,
        "attack.random": random,
        "attack.oracle": oracle,
    }
    return {name: np.full(shape, value) for name, value in values.items()}


def test_interval_of_independent_scenes_is_that_of_the_normal_law():
    values = np.random.default_rng(1).normal(60, 10, (1, 400))
    summary = summarise(values, values, draws(names(400)))
    half = 1.96 * values.std() / 20
    assert summary["mdsc"] == pytest.approx(values.mean())
    assert summary["mdsc_ci"] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.15)


def test_scenes_of_one_photograph_count_as_one():
    per_photo = np.random.default_rng(2).normal(60, 10, 20)
    values = np.repeat(per_photo, 10)[None]
    alone = draws(names(200)).interval(draws(names(200)).means(values))
    groups = [str(i // 10) for i in range(200)]
    clustered = draws(groups).interval(draws(groups).means(values))
    assert width(clustered) == pytest.approx(width(alone) * np.sqrt(10), rel=0.25)


def test_seeds_are_resampled_too():
    values = np.stack([np.full(50, 40.0), np.full(50, 60.0)])
    summary = summarise(values, values, draws(names(50), seeds=2))
    assert summary["mdsc"] == 50.0
    assert summary["mdsc_ci"] == [40.0, 60.0]
    assert summary["per_seed"] == [{"mdsc": 40.0, "miou": 40.0}, {"mdsc": 60.0, "miou": 60.0}]
    assert summary["n"] == 50


def test_every_resample_keeps_whole_clusters():
    groups = ["a", "a", "b", "c", "c", "c"]
    weights = draws(groups, resamples=100).scenes
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()


def test_recovery_is_the_share_of_the_loss_that_came_back():
    found = recovery(rows(80.0, 20.0, 50.0), draws(names(30)))
    assert found["value"] == pytest.approx(0.5)
    assert found["ci"] == pytest.approx([0.5, 0.5])
    assert found["per_seed"] == pytest.approx([0.5])
    assert found["paired"] == {"ideal": 80.0, "attack.learned": 20.0, "defence.learned": 50.0}


def test_way_runs_from_random_to_oracle():
    found = way(rows(80.0, 20.0, 50.0, random=50.0, oracle=10.0), draws(names(30)))
    assert found["value"] == pytest.approx(0.75)
    assert found["n"] == 30


@pytest.mark.parametrize("ratio", [way, recovery])
def test_ratios_are_null_where_the_attack_did_too_little_harm(ratio):
    harmless = ratio(rows(80.0, 80.0 - MINIMUM_HARM + 0.01, 79.0, random=79.9), draws(names(30)))
    assert harmless["value"] is None
    assert harmless["ci"] is None
    assert harmless["per_seed"] == [None]
    harmful = ratio(rows(80.0, 80.0 - MINIMUM_HARM - 0.01, 79.0, random=79.9), draws(names(30)))
    assert harmful["value"] is not None


def test_way_is_null_where_the_oracle_is_no_better_than_chance():
    assert way(rows(80.0, 20.0, 50.0, random=10.0, oracle=10.0), draws(names(30)))["value"] is None


def test_ratios_are_paired():
    """Scenes of very different difficulty, the same share recovered on each: no uncertainty is left."""
    scale = np.random.default_rng(3).uniform(0.2, 1, (1, 40))
    dice = {"ideal": 90 * scale, "attack.learned": 30 * scale, "defence.learned": 60 * scale}
    found = recovery(dice, draws(names(40)))
    assert found["ci"] == pytest.approx([0.5, 0.5])
    unpaired = draws(names(40)).interval(draws(names(40)).means(dice["defence.learned"]))
    assert width(unpaired) > 5


def test_a_change_is_paired():
    base = np.random.default_rng(4).normal(60, 20, (1, 100))
    found = change({"a": base - 0.5, "b": base}, ("a", "b"), draws(names(100)))
    assert found["n"] == 100
    assert [found["value"], *found["ci"]] == pytest.approx([-0.5] * 3)
