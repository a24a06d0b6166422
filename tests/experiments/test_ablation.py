import json

import pytest

from experiments import ablation
from ppd_agents.training.presets import ROLES, preset
from ppd_env.errors import ConfigError

TINY = {
    "scenes": "shapes://train?count=6&seed=0",
    "rounds": 1,
    "final_updates": 2,
    "final_rehearsals": 1,
    "games": 3,
    "steps": (2, 3),
    "hidden": 8,
    "rehearsals": 4,
    "tensorboard": False,
    "progress": False,
}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(ablation, "BASE", TINY)
    monkeypatch.setattr(ablation, "SCENES", "shapes://val?count=4&seed=0")


@pytest.mark.parametrize("factor", ablation.FACTORS)
def test_every_factor_is_a_training_of_its_own(factor):
    base = preset("mini", **ablation.BASE)
    changed = preset("mini", **dict(ablation.BASE) | dict(ablation.FACTORS[factor]))
    assert (changed == base) == (factor == "base")
    for role in ROLES:
        assert changed.network(role, 8).role == role


def test_an_ablation_goes_on_where_it_stopped_and_prints_a_line_per_factor(small, tmp_path, monkeypatch):
    options = ablation.Options(folder=tmp_path, seeds=(0, 1), factors=("base", "dueling"))
    result = ablation.run(options)
    budget = result["results"]["dueling"]["20"]
    assert set(budget) == {"attack", "recovery", "recovery_common", "clean_change"}
    assert 0 <= budget["attack"]["value"] <= 100
    assert result["config"]["changes"]["dueling"] == {"dueling": True}
    lines = ablation.table(result).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| base", "| dueling"]

    def fail(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr(ablation, "train_adversarial", fail)
    again = ablation.run(options)
    assert again["results"] == result["results"]
    path = tmp_path / "base" / "seed-0" / "measured.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"key": []}))
    with pytest.raises(AssertionError, match="trained again"):
        ablation.run(options)
    with pytest.raises(ConfigError, match="known ones: base"):
        ablation.run(ablation.Options(factors=("luck",)))
