"""Print the README's tables from the recorded results: ``python -m experiments.results_table``."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from math import inf
from pathlib import Path
from typing import Any

from experiments.dice_resolution import resolution_table
from ppd_agents.speed.account import account_table
from ppd_agents.speed.table import growth_table, learner_table, limits_table, performance_table

RESULTS = Path(__file__).parent / "results"
README_SEGMENTERS = ("mini", "vit_b", "vit_b bfloat16")
"""What the README's table of a CPU shows; the decoders of all sizes of SAM are alike."""

README_GPU_SEGMENTERS = ("mini", "vit_h bfloat16 compiled")
"""What its table of a GPU shows."""

LEARNED_CONTROLS = ("defence.graph_statistics", "defence.maskable_ppo")
"""Controls that are trained as the defender is; the others are rules."""

_SETS = {"shapes": "shapes scenes", "photos": "photograph scenes"}
_RATIOS = {
    "way": "way, of random to oracle attack, on the oracle's scenes",
    "recovery": "recovery, of what the attack took",
}


def run_table(run: dict[str, Any]) -> str:
    """Write the table of attacks and defences as Markdown.

    Args:
        run: A result file of ``ppd run``.

    Returns:
        One column per set of scenes and budget: mDSC in percent with its interval, then the ratios.
    """
    columns = {
        f"{table['ideal']['n']} {_called(uri)}, {budget} actions": table
        for uri, budgets in run["results"].items()
        for budget, table in budgets.items()
    }
    tables = list(columns.values())
    rows = [name for name, row in tables[0].items() if isinstance(row, dict) and "mdsc" in row]
    lines = [_line(["mDSC, %", *columns]), "|---" * (len(columns) + 1) + "|"]
    for name in rows:
        fewer = [t[name]["n"] for t in tables if t[name]["n"] < t["ideal"]["n"]]
        label = f"`{name}`" + (f", first {fewer[0]} at most" if fewer else "")
        lines.append(_line([label, *(_cell(t[name]["mdsc"], t[name]["mdsc_ci"], 1) for t in tables)]))
    clean = [t["clean_change"] for t in tables]
    lines.append(_line(["change of clean prompts", *(_cell(c["value"], c["ci"], 1) for c in clean)]))
    for name, label in _RATIOS.items():
        lines.append(_line([label, *(_cell(t[name]["value"], t[name]["ci"], 2) for t in tables)]))
    return "\n".join(lines)


def summary_table(suite: dict[str, Any]) -> str:
    """Write the attack, the defender and the best of the other defences, as Markdown.

    Args:
        suite: A result file of ``ppd evaluate --suite controls``.

    Returns:
        One line per set of scenes that ships with the project or average over real folders, and budget.
    """
    heads = ["scenes", "way of the attack", "recovery, the defender", "each training seed"]
    heads += ["the best rule", "`maskable_ppo`", "clean prompts"]
    lines = [_line(heads), "|---" * len(heads) + "|"]
    for name, budgets in _groups(suite).items():
        for budget, table in budgets.items():
            recovery = table["recovery"]
            row, best = _best(recovery["controls"], besides=LEARNED_CONTROLS)
            rival = recovery["controls"]["defence.maskable_ppo"]
            cells = [_estimate(table["way"], 2), _estimate(recovery, 2)]
            cells.append(", ".join(_plain(one, 2) for one in recovery["per_seed"]))
            cells += [f"{_plain(best['value'], 2)}, `{row.partition('.')[2]}`", _estimate(rival, 2)]
            lines.append(_line([f"{name}, {budget} actions", *cells, _estimate(table["clean_change"], 1)]))
    return "\n".join(lines)


def controls_table(suite: dict[str, Any]) -> str:
    """Write what the attack does, what every defence takes back, and what it costs, as Markdown.

    Args:
        suite: A result file of ``ppd evaluate --suite controls``.

    Returns:
        One column per budget of the scenes that ship with the project and of the average over real folders.
    """
    tables = {
        f"{name}, {budget}": table
        for name, budgets in _groups(suite).items()
        for budget, table in budgets.items()
    }
    lines = [_line(["", *tables]), "|---" * (len(tables) + 1) + "|"]
    lines.append(_line(["way of the attack", *(_estimate(t["way"], 2) for t in tables.values())]))
    for label, key, digits in (
        ("recovery", "recovery", 2),
        ("clean prompts", "clean_change", 1),
        ("one-shot prompts", "matching_change", 1),
    ):
        some = next(iter(tables.values()))[key]
        learned = [_estimate(t[key], digits) for t in tables.values()]
        lines.append(_line([f"{label}, **the defender**", *learned]))
        if all("per_seed" in t[key] for t in tables.values()):
            seeds = [", ".join(_plain(one, digits) for one in t[key]["per_seed"]) for t in tables.values()]
            lines.append(_line([f"{label}, the defender of each seed", *seeds]))
        for row in some["controls"]:
            name = row.partition(".")[2]
            cells = [_estimate(t[key]["controls"][row], digits) for t in tables.values()]
            lines.append(_line([f"{label}, `{name}`", *cells]))
    return "\n".join(lines)


def folders_table(suite: dict[str, Any]) -> str:
    """Write what attack and defence do on each folder of real images, as Markdown.

    Args:
        suite: A result file of ``ppd evaluate --suite controls --data FOLDER``.

    Returns:
        One line per folder and budget.
    """
    heads = ["folder", "scenes", "way", "recovery", "clean prompts", "one-shot prompts"]
    lines = [_line(heads), "|---" * len(heads) + "|"]
    folders = {name: budgets for name, budgets in suite["results"].items() if "://" not in name}
    for name, budgets in folders.items():
        for budget, table in budgets.items():
            estimates = [_estimate(table[key], 2) for key in ("way", "recovery")]
            estimates += [_estimate(table[key], 1) for key in ("clean_change", "matching_change")]
            lines.append(_line([f"`{name}`, {budget} actions", str(table["ideal"]["n"]), *estimates]))
    return "\n".join(lines)


def sections_table(suite: dict[str, Any]) -> str:
    """Write what the defender takes back in each further section, beside the best other defence, as Markdown.

    Args:
        suite: A result file of ``ppd evaluate --suite controls``.

    Returns:
        One line per section, set of scenes and budget.
    """
    heads = ["section", "scenes", "recovery, the defender", "recovery, the best control", "clean prompts"]
    lines = [_line(heads), "|---" * len(heads) + "|"]
    for section, found in suite["sections"].items():
        for name, budgets in _groups(found).items():
            for budget, table in budgets.items():
                recovery, clean = table["recovery"], table["clean_change"]
                row, best = _best(recovery["controls"])
                cells = [_estimate(recovery, 2), f"{_estimate(best, 2)}, `{row.partition('.')[2]}`"]
                lines.append(
                    _line([f"`{section}`", f"{name}, {budget} actions", *cells, _estimate(clean, 1)])
                )
    return "\n".join(lines)


def _best(controls: dict[str, Any], besides: Collection[str] = ()) -> tuple[str, dict[str, Any]]:
    """Return the control without ground truth that takes back most, but for those ``besides``."""
    left_out = {"defence.oracle", *besides}
    honest = {row: found for row, found in controls.items() if row not in left_out}
    worth = {row: -inf if found["value"] is None else found["value"] for row, found in honest.items()}
    row = max(worth, key=worth.__getitem__)
    return row, honest[row]


def _groups(part: dict[str, Any]) -> dict[str, Any]:
    """Return the tables of the scenes that ship with the project and of the average over real folders."""
    own = {_called(name): budgets for name, budgets in part["results"].items() if "://" in name}
    return own | part["averages"]


def _estimate(found: dict[str, Any], digits: int) -> str:
    return _cell(found["value"], found["ci"], digits)


def paper_table(number: int) -> str:
    """Return the overview of a recorded table of the paper, as ``ppd evaluate --table`` wrote it.

    Args:
        number: 1 or 2.
    """
    written = (RESULTS / "tables" / f"table-{number}.md").read_text(encoding="utf-8")
    return next(part for part in written.split("\n\n") if part.startswith("|"))


def mini_table(mini: dict[str, Any]) -> str:
    """Write the table of ``mini``'s own measurements as Markdown.

    Args:
        mini: A result file of ``experiments.train_mini.evaluate``.

    Returns:
        One row per measurement.
    """
    return "\n".join(["| `mini` | |", "|---|---|", *_mini_rows(mini["results"])])


def _mini_rows(found: dict[str, float]) -> Iterator[str]:
    for clicks, label in ((1, "1 click"), (5, "5 clicks")):
        yield _line([f"IoU after {label}, 500 shapes scenes", f"{found[f'shapes.iou_after_{clicks}']:.3f}"])
    yield _line(["correlation of predicted and true IoU", f"{found['shapes.iou_correlation']:.3f}"])
    for name, value in found.items():
        place, _, kind = name.partition(".")
        if kind == "dice_jittered":
            where = (
                "the five real folders, averaged" if place == "real" else place.replace("_test", "://test")
            )
            yield _line([f"Dice with jittered ideal prompts, {where}", f"{value:.3f}"])


def _called(uri: str) -> str:
    scheme = uri.partition(":")[0]
    return _SETS.get(scheme, f"scenes of {scheme}")


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _plain(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _cell(value: float | None, ends: list[float] | None, digits: int) -> str:
    if value is None or ends is None:
        return "-"
    return f"{value:.{digits}f} ({ends[0]:.{digits}f} to {ends[1]:.{digits}f})"


if __name__ == "__main__":
    print(run_table(json.loads((RESULTS / "run.json").read_text())), end="\n\n")
    controls = json.loads((RESULTS / "controls.json").read_text())
    print(summary_table(controls), end="\n\n")
    print(controls_table(controls), end="\n\n")
    if controls["averages"]:
        print(folders_table(controls), end="\n\n")
    if controls["sections"]:
        print(sections_table(controls), end="\n\n")
    for number in (1, 2):
        print(paper_table(number), end="\n\n")
    print(mini_table(json.loads((RESULTS / "mini.json").read_text())))
    if (RESULTS / "bench.json").is_file():
        bench = json.loads((RESULTS / "bench.json").read_text())
        print("\n" + performance_table(bench, README_SEGMENTERS))
        for table in (performance_table, limits_table, learner_table, growth_table):
            print("\n" + table(bench))
    for name in ("bench-gpu.json", "bench-gpu-second.json"):
        bench = json.loads((RESULTS / name).read_text())
        print("\n" + performance_table(bench, README_GPU_SEGMENTERS))
        print("\n" + performance_table(bench))
    for name in ("decoder_account.json", "decoder_account_bfloat16.json"):
        print("\n" + account_table(json.loads((RESULTS / name).read_text())["results"]))
    print("\n" + resolution_table(json.loads((RESULTS / "dice_resolution.json").read_text())))
