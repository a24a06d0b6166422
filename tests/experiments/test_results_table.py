import pytest

from experiments.results_table import controls_table, folders_table, sections_table, summary_table


def estimate(value, **more):
    ends = None if value is None else [value - 0.1, value + 0.1]
    return {"value": value, "ci": ends} | more


def table(recovery, **controls):
    found = {f"defence.{name}": estimate(value) for name, value in controls.items()}
    return {
        "ideal": {"mdsc": 80.0, "n": 7},
        "way": estimate(0.5),
        "recovery": estimate(recovery, controls=found),
        "clean_change": estimate(-0.4, controls={}),
        "matching_change": estimate(2.0, controls={}),
    }


@pytest.fixture
def suite():
    shapes, folder = {"6": table(0.7, count=0.2)}, {"6": table(0.6, count=0.1), "20": table(0.4, count=0.0)}
    sets = {"shapes://test": shapes, "kvasir_seg": folder}
    lattice = {"6": table(0.9, count=None, lattice=0.3, subsample=-0.1, oracle=1.0)}
    return {
        "results": sets,
        "averages": {"real folders": folder},
        "sections": {"lattice": {"results": {"shapes://test": lattice}, "averages": {}}},
    }


def test_controls_stand_under_the_defender(suite):
    lines = controls_table(suite).splitlines()
    assert lines[0] == "|  | shapes scenes, 6 | real folders, 6 | real folders, 20 |"
    assert (
        "| recovery, **the defender** | 0.70 (0.60 to 0.80) | 0.60 (0.50 to 0.70) | 0.40 (0.30 to 0.50) |"
        in lines
    )
    assert any(line.startswith("| recovery, `count` | 0.20") for line in lines)


def test_folders_have_a_line_for_each_budget(suite):
    lines = folders_table(suite).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| `kvasir_seg`, 6 actions",
        "| `kvasir_seg`, 20 actions",
    ]
    assert lines[2].endswith(
        "| 7 | 0.50 (0.40 to 0.60) | 0.60 (0.50 to 0.70) | -0.4 (-0.5 to -0.3) | 2.0 (1.9 to 2.1) |"
    )


def test_sections_name_the_best_control_without_ground_truth(suite):
    (line,) = sections_table(suite).splitlines()[2:]
    assert line == (
        "| `lattice` | shapes scenes, 6 actions | 0.90 (0.80 to 1.00) | 0.30 (0.20 to 0.40), `lattice` "
        "| -0.4 (-0.5 to -0.3) |"
    )


def test_the_summary_names_the_best_rule_and_sets_learned_controls_apart(suite):
    shapes = suite["results"]["shapes://test"]["6"]["recovery"]
    shapes["per_seed"] = [0.6, 0.8]
    shapes["controls"] |= {"defence.maskable_ppo": estimate(0.9), "defence.oracle": estimate(1.0)}
    suite["averages"] = {}
    (line,) = summary_table(suite).splitlines()[2:]
    assert line == (
        "| shapes scenes, 6 actions | 0.50 (0.40 to 0.60) | 0.70 (0.60 to 0.80) | 0.60, 0.80 | 0.20, `count` "
        "| 0.90 (0.80 to 1.00) | -0.4 (-0.5 to -0.3) |"
    )
