import re

import numpy as np
import pytest

from ppd_agents.evaluation.rows import ROWS
from ppd_agents.evaluation.statistics import Bootstrap, change, recovery, summarise, way
from ppd_agents.report.charts import Curve, Interval, interval_chart, line_chart, nice_ticks, running_mean
from ppd_agents.report.gallery import GalleryScene, Panel, outline, scene_figure
from ppd_agents.report.html import Gallery, render, write_report
from ppd_agents.report.learning import learning_curves
from ppd_agents.report.pick import spread, varied
from ppd_agents.report.summary import ROW_NAMES, percent, ratio
from ppd_agents.report.text import text_tables


def table(seed, harm=40.0):
    rng = np.random.default_rng(seed)
    bootstrap = Bootstrap.draw([str(i) for i in range(20)], 1, rng, 100)
    means = dict(zip(ROWS, (80, 75, 80 - harm, 5, 81 - harm, 90 - harm, 78, 79.5), strict=True))
    dice = {row: rng.uniform(-2, 2, (1, 20)) + mean for row, mean in means.items()}
    rows = {row: summarise(values, values - 7, bootstrap) for row, values in dice.items()}
    rows["way"], rows["recovery"] = way(dice, bootstrap), recovery(dice, bootstrap)
    rows["clean_change"] = change(dice, ("clean.learned", "ideal"), bootstrap)
    rows["recovery"]["controls"] = {"defence.random": recovery(dice, bootstrap, "defence.random")}
    return rows


@pytest.fixture
def result():
    return {
        "command": "run",
        "seeds": [3],
        "versions": {"torch": "9.8.7"},
        "seconds": 75.0,
        "results": {
            "shapes://test?count=20": {"6": table(0), "20": table(1)},
            "photos://test": {"6": table(2), "20": table(3, harm=2.0)},
        },
        "config": {
            "grid": 16,
            "confidence": 0.95,
            "scene_sets": {"shapes://test?count=20": {"signature": "shapes-abc123", "n": 20, "left_out": []}},
        },
    }


def scene(name="scene one"):
    image = np.full((40, 60, 3), 90, np.uint8)
    truth = np.zeros((40, 60), bool)
    truth[10:30, 10:30] = True
    points = np.array([[5.0, 5.0], [15.0, 15.0], [50.0, 30.0], [40.0, 10.0]])
    states = ([1, 2, 0, 0], [1, 2, 1, 2], [1, 0, 0, 2])
    panels = [Panel(f"State {k}", np.array(s, np.int8), truth, 10.5 + k) for k, s in enumerate(states)]
    return GalleryScene(name, image, truth, points, panels)


def cells(page):
    """The text of every table row's cells."""
    strip = lambda cell: " ".join(re.sub(r"<[^>]+>", "", cell).split())  # noqa: E731
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page, re.DOTALL)
    return [[strip(c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


def signed(change):
    text = percent(change)
    return text if text.startswith("\N{MINUS SIGN}") else f"+{text}"


def to(ends, write):
    return "" if ends is None else " to ".join(write(end) for end in ends)


def test_page_holds_every_number(result):
    page = render(result, name="demo")
    shown = cells(page)
    for budgets in result["results"].values():
        for rows in budgets.values():
            for name in ROWS:
                row = rows[name]
                scores = [percent(row["mdsc"]), to(row["mdsc_ci"], percent)]
                scores += [percent(row["miou"]), to(row["miou_ci"], percent)]
                assert [ROW_NAMES[name][0], *scores, "20"] in shown
            ratios = {
                "Way of the learned attack": rows["way"],
                "Recovery by the learned defence": rows["recovery"],
                "Recovery by random removal": rows["recovery"]["controls"]["defence.random"],
            }
            for label, value in ratios.items():
                assert [label, ratio(value["value"]), to(value["ci"], ratio), "20"] in shown
    for budgets in result["results"].values():
        for rows in budgets.values():
            clean = rows["clean_change"]
            assert f"<dd>{signed(clean['value'])}</dd>" in page
            assert f"{to(clean['ci'], signed)} points" in page
    for text in ("demo", "shapes-abc123", "9.8.7", "1 min 15 s", "seed 3"):
        assert text in page


def test_null_ratios_are_said_in_words(result):
    only = {"photos://test": {"20": result["results"]["photos://test"]["20"]}}
    assert only["photos://test"]["20"]["recovery"]["value"] is None
    page = render({**result, "results": only}, name="demo")
    assert "too little harm" in page
    assert "None" not in page
    assert "too little harm" in text_tables({**result, "results": only})


def test_page_needs_nothing_from_elsewhere(result):
    curves = [Curve("c", "x", "y", {"a": ([0, 1], [0, 1])})]
    page = render(result, name="demo", curves=curves, galleries=[Gallery("g", "n", [scene()])])
    assert not re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:|#)", page)
    assert not re.findall(r"url\(|@import|<script|<link", page)
    assert page.count("data:image/jpeg") == 1
    ids = re.findall(r'id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {"results", "pictures", "tables", "learning", "words", "setup"} <= set(ids)
    for anchor in re.findall(r'href="#([^"]+)"', page):
        assert anchor in ids


def test_names_cannot_break_the_page(result):
    galleries = [Gallery("g", "n", [scene("<b>bold</b>")])]
    page = render(result, name="<script>alert(1)</script>", galleries=galleries)
    assert "<script>" not in page
    assert "<b>bold</b>" not in page


def test_page_is_written_whole(tmp_path):
    write_report(tmp_path / "runs" / "a" / "report.html", "page")
    assert (tmp_path / "runs" / "a" / "report.html").read_text() == "page"
    assert [p.name for p in (tmp_path / "runs" / "a").iterdir()] == ["report.html"]


def test_figure_shows_what_changed():
    panels = scene_figure(scene(), 0).split('<div class="panel">')[1:]
    count = [
        {k: panel.count(f'class="{k}') for k in ("prompt positive", "prompt negative")} for panel in panels
    ]
    assert count == [
        {"prompt positive": 1, "prompt negative": 1},
        {"prompt positive": 2, "prompt negative": 2},
        {"prompt positive": 1, "prompt negative": 1},
    ]
    assert [panel.count(" added") for panel in panels] == [0, 4, 0]
    assert [panel.count("removed negative prompt") for panel in panels] == [0, 0, 1]
    assert [panel.count("removed positive prompt") for panel in panels] == [0, 0, 1]
    assert "10.5" in panels[0]
    assert "12.5" in panels[2]


def test_outline_keeps_holes_and_corners():
    mask = np.zeros((20, 40), bool)
    mask[2:18, 2:38] = True
    mask[8:12, 10:20] = False
    path = outline(mask, (40, 20))
    assert path.count("M") == path.count("Z") == 2
    numbers = np.array(re.findall(r"[\d.]+", path), float)
    assert numbers.min() == 2.5
    assert numbers.max() == 37.5
    assert outline(np.zeros((5, 5), bool), (10, 10)) == ""


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.2, 0.9), (-3, 7), (0, 40000), (5, 5), (1e-4, 3e-4)])
def test_ticks_cover_the_range(low, high):
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 9
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_running_mean_looks_back_only():
    assert running_mean(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist() == [1.0, 2.0, 4.0, 6.0]


def test_line_chart_leaves_out_what_is_not_finite():
    chart = line_chart(
        Curve("t", "x", "y", {"a": ([0, 1, 2], [1.0, float("nan"), 3.0]), "b": ([0], [np.inf])})
    )
    assert "nan" not in chart
    assert chart.count("<polyline") == 1
    assert len(re.search(r'points="([^"]+)"', chart).group(1).split()) == 2
    assert "Nothing was recorded" in line_chart(Curve("t", "x", "y", {"a": ([], [])}))


def test_interval_chart_stays_on_its_axis():
    chart = interval_chart([Interval("row", 50, -20, 130)], "unit")
    whisker = re.search(r'class="whisker" x1="([\d.]+)" x2="([\d.]+)"', chart)
    stem = re.search(r'class="stem" x1="([\d.]+)" x2="([\d.]+)"', chart)
    left, right = (float(v) for v in whisker.groups())
    zero, middle = (float(v) for v in stem.groups())
    assert left == zero
    assert middle == pytest.approx((left + right) / 2, abs=0.1)


def test_gallery_scenes_are_chosen_by_rule():
    ideal = np.full(12, 90.0)
    attacked = np.array([30.0] * 10 + [89.0, 88.0])
    defended = attacked + np.arange(12) * 5
    assert spread(ideal, attacked, defended, 4) == [9, 6, 3, 0]
    assert spread(ideal[:2], attacked[:2], defended[:2], 4) == [1, 0]
    assert len(spread(ideal, np.full(12, 89.0), ideal, 3)) == 3


def test_no_photograph_crowds_out_the_others():
    loss = np.array([50.0, 60.0, 70.0, 10.0, 20.0])
    groups = ["coins", "coins", "coins", "cat", "man"]
    assert varied(loss, groups, 3).tolist() == [2, 3, 4]
    assert varied(loss, groups, 6).tolist() == [1, 2, 3, 4]
    assert varied(loss, ["a", "b", "c", "d", "e"], 2).tolist() == [0, 1, 2, 3, 4]


def test_learning_curves_follow_the_history():
    history = [
        {
            "round": k,
            "attacker/dice_before": 0.8,
            "attacked_dice": None if k == 2 else 0.3,
            "defender/return": 0.1 * k,
        }
        for k in (1, 2, 3)
    ]
    dice, returns, *_ = learning_curves(history)
    assert dice.series["ideal prompts"] == ([1.0, 2.0, 3.0], [80.0, 80.0, 80.0])
    assert np.isnan(dice.series["under the greedy attacker"][1][1])
    assert returns.series["defender"][1] == pytest.approx([10.0, 20.0, 30.0])
    assert learning_curves([]) == []
