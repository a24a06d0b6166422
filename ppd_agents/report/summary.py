"""Turns a result file into what the page shows: formatted numbers, rows, sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ppd_agents.report.charts import Interval, interval_chart

ROW_NAMES = {
    "ideal": ("Ideal prompts", "ideal", "Prompts sampled from the ground truth, before any attack."),
    "attack.random": ("Random attack", "control", "Prompts at random places, with random signs."),
    "attack.learned": ("Learned attack", "attack", "The trained attacker."),
    "attack.oracle": (
        "Oracle attack",
        "control",
        "Greedy, sees the ground truth: the best of many tries a step.",
    ),
    "defence.random": ("Random removal", "control", "After the learned attack, prompts removed at random."),
    "defence.learned": ("Learned defence", "defence", "After the learned attack, the trained defender."),
    "defence.oracle": (
        "Oracle defence",
        "control",
        "Greedy, sees the ground truth: the best of all removals.",
    ),
    "clean.learned": (
        "Defender on clean prompts",
        "defence",
        "The trained defender where nothing was attacked.",
    ),
}
_SETS = {"shapes": "Procedural scenes", "photos": "Real photographs", "folder": "Your own images"}


def percent(value: float) -> str:
    """Write a percentage with one decimal."""
    return f"{value:.1f}".replace("-", "\N{MINUS SIGN}")


def ratio(value: float | None) -> str:
    """Write a ratio with two decimals; a dash where it is null."""
    return "\N{EN DASH}" if value is None else f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def ratio_interval(ratio_of: Mapping[str, Any]) -> str:
    """Write the interval of a ratio; empty where it is null."""
    return "" if ratio_of["ci"] is None else f"{ratio(ratio_of['ci'][0])} to {ratio(ratio_of['ci'][1])}"


def interval(ends: list[float]) -> str:
    """Write an interval of percentages."""
    return f"{percent(ends[0])} to {percent(ends[1])}"


def set_title(uri: str) -> str:
    """Return a readable name of a set of scenes."""
    return _SETS.get(uri.split(":")[0], uri)


def _row(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    label, kind, meaning = ROW_NAMES.get(name, (name, "control", "A further control."))
    return {
        "key": name,
        "label": label,
        "kind": kind,
        "meaning": meaning,
        "mdsc": percent(values["mdsc"]),
        "mdsc_ci": interval(values["mdsc_ci"]),
        "miou": percent(values["miou"]),
        "miou_ci": interval(values["miou_ci"]),
        "n": values["n"],
    }


def is_row(values: Any) -> bool:
    """Tell a row of a table from the ratios that stand next to it."""
    return isinstance(values, Mapping) and "mdsc" in values


def _chart(rows: Mapping[str, Any]) -> str:
    drawn = []
    for name, values in rows.items():
        label, kind, meaning = ROW_NAMES.get(name, (name, "control", "A further control."))
        low, high = values["mdsc_ci"]
        note = f"{values['mdsc']:.1f}, interval {low:.1f} to {high:.1f}, {values['n']} images. {meaning}"
        drawn.append(Interval(label, values["mdsc"], low, high, kind, note))
    return interval_chart(drawn, "mean Dice, % (line: interval)")


def budget_view(budget: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows of one budget on one set of scenes."""
    rows = {name: values for name, values in table.items() if is_row(values)}
    ideal, attacked, defended = (
        rows[name]["mdsc"] for name in ("ideal", "attack.learned", "defence.learned")
    )
    recovery, way, clean = table["recovery"], table["way"], table["clean_change"]
    controls = recovery.get("controls", {})
    return {
        "budget": budget,
        "rows": [_row(name, values) for name, values in rows.items()],
        "chart": _chart(rows),
        "bars": [
            {"label": "Ideal", "kind": "ideal", "value": percent(ideal), "width": ideal},
            {"label": "Attacked", "kind": "attack", "value": percent(attacked), "width": attacked},
            {"label": "Defended", "kind": "defence", "value": percent(defended), "width": defended},
        ],
        "way": {"value": ratio(way["value"]), "ci": ratio_interval(way), "n": way["n"]},
        "recovery": {"value": ratio(recovery["value"]), "ci": ratio_interval(recovery), "n": recovery["n"]},
        "controls": [
            {"label": ROW_NAMES[name][0], "value": ratio(c["value"]), "ci": ratio_interval(c), "n": c["n"]}
            for name, c in controls.items()
        ],
        "clean": {"value": _signed(clean["value"]), "ci": " to ".join(map(_signed, clean["ci"]))},
        "story": _story(budget, ideal, attacked, defended, recovery["value"], controls),
    }


def _whole(share: float) -> str:
    """Write a share as a whole percentage."""
    return f"{round(100 * share)}".replace("-", "\N{MINUS SIGN}")


def _signed(change: float) -> str:
    text = percent(change)
    return text if change < 0 and text != "\N{MINUS SIGN}0.0" else "+" + text.lstrip("\N{MINUS SIGN}")


def _story(
    budget: str,
    ideal: float,
    attacked: float,
    defended: float,
    share: float | None,
    controls: Mapping[str, Any],
) -> str:
    """Say in words what happened with one budget."""
    text = (
        f"{budget} prompts placed by the trained attacker change the mean Dice from {percent(ideal)} to "
        f"{percent(attacked)}; the trained defender brings it to {percent(defended)}"
    )
    if share is None:
        return text + ". The attack did too little harm for a recovery to mean anything."
    text += f", taking back {_whole(share)} % of the loss"
    random = controls.get("defence.random", {}).get("value")
    return text + ("." if random is None else f" (random removal: {_whole(random)} %).")


def set_view(uri: str, budgets: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows of one set of scenes."""
    views = [budget_view(budget, table) for budget, table in budgets.items()]
    return {"uri": uri, "title": set_title(uri), "n": views[0]["rows"][0]["n"], "budgets": views}


def duration(seconds: float) -> str:
    """Write a time as minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten nested settings into (dotted key, text) pairs."""
    pairs: list[tuple[str, str]] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            pairs += flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            pairs.append((prefix + key, ", ".join(map(str, value)) or "none"))
        else:
            pairs.append((prefix + key, str(value)))
    return pairs
