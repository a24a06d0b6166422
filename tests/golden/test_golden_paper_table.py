"""A tiny result of the paper's Table 1, in print: Markdown, LaTeX and CSV are those in this folder.

`python tests/golden/test_golden_paper_table.py` writes them anew; look at them before you keep them.
"""

from pathlib import Path

import numpy as np
import pytest

from ppd_agents.evaluation.paper.config import TableConfig
from ppd_agents.evaluation.paper.playing import Played
from ppd_agents.evaluation.paper.summary import tabulate_set
from ppd_agents.evaluation.paper.written import to_csv, to_latex, to_markdown, write_table
from ppd_agents.evaluation.tables import as_plain

HERE = Path(__file__).parent
PRINTS = {"md": to_markdown, "tex": to_latex, "csv": to_csv}
ROWS = {"ideal": 1, "attack.learned@6": 1, "defence.learned@6": 1, "matching": 2, "matching.learned": 2}


def scores():
    """Scores of four targets, worse from row to row; matching has two references."""
    found = {}
    for worse, (row, repetitions) in enumerate(ROWS.items()):
        dice = 96 - 9 * worse - 5 * np.arange(4) - 3 * np.arange(repetitions)[:, None]
        iou, areas = dice / (200 - dice) * 100, np.array([200, 400, 100, 900]) + 0 * dice
        columns = [dice, iou, (100 - dice) / 4, dice * areas / 200, areas, 20 - worse + 0 * dice]
        found[row] = np.stack(columns, axis=-1)
    return found


def result():
    config = TableConfig(1, "fake", "fake", 6, references=2, budgets=(6,), resamples=200)
    notes = {"references": {"cat": ["cat/1", "cat/2"], "dog": ["dog/1", "dog/2"]}}
    played = Played(scores(), ["a", "a", "b", "c"], [], notes)
    source = {
        "name": "Somebody, Table I",
        "paper": "A. Body, Masks & prompts, 2000",
        "where": "Table I",
        "models": "none_named",
        "protocol": "one-shot",
        "rows": {
            "ideal": {"VOC": {"mdsc": 78.5, "miou": 69.4}},
            "vrp_sam": {"VOC": {"mdsc": 4.6, "miou": 2.6}},
        },
    }
    return as_plain(
        {
            "command": "ppd evaluate --table 1 --data my_sets",
            "table": 1,
            "results": {"set_1?split=val": tabulate_set(played, config)},
            "published": [source],
            "config": {
                **{name: getattr(config, name) for name in ("segmenter", "features", "grid", "confidence")},
                "scene_sets": {"set_1?split=val": {**notes, "n": 4}},
                "notes": ["The agents were trained elsewhere."],
            },
        }
    )


@pytest.mark.parametrize("ending", PRINTS)
def test_a_table_in_print_is_as_it_was(ending):
    assert PRINTS[ending](result()) == (HERE / f"paper_table.{ending}").read_text(encoding="utf-8")


def test_the_numbers_are_those_of_the_scores():
    rows, expected = result()["results"]["set_1?split=val"]["6"], scores()
    for name, values in expected.items():
        row = rows[name.partition("@")[0]]
        assert row["mdsc"] == pytest.approx(values[..., 0].mean(), abs=1e-3)
        assert row["hd95"] == pytest.approx(values[..., 2].mean(), abs=1e-3)
        both, areas = values[..., 3].sum(), values[..., 4].sum()
        assert row["pooled"]["dice"] == pytest.approx(200 * both / areas, abs=1e-3)
        assert row["pooled"]["iou"] == pytest.approx(100 * both / (areas - both), abs=1e-3)
        assert row["pooled"]["dice_ci"][0] < row["pooled"]["dice"] < row["pooled"]["dice_ci"][1]
    assert rows["matching"]["reference_sd"]["mdsc"] == pytest.approx(3 / 2**0.5, abs=1e-3)
    gap = rows["differences"]["attack.learned - ideal"]["mdsc"]
    assert gap == {"value": -9.0, "ci": [-9.0, -9.0], "n": 4}


def test_the_four_files_are_there_whole(tmp_path):
    paths = write_table(result(), tmp_path / "new")
    assert sorted(path.name for path in paths) == sorted(path.name for path in (tmp_path / "new").iterdir())
    assert {path.suffix for path in paths} == {".json", ".csv", ".tex", ".md"}


if __name__ == "__main__":
    for ending, prints in PRINTS.items():
        (HERE / f"paper_table.{ending}").write_text(prints(result()), encoding="utf-8")
