"""Learning curves from the history of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ppd_agents.report.charts import Curve


def _series(history: Sequence[Mapping[str, Any]], key: str, scale: float) -> tuple[list[float], list[float]]:
    """Return (rounds, values) of one key; a value that was not recorded becomes NaN."""
    values = (record.get(key) for record in history)
    return (
        [float(record["round"]) for record in history],
        [float("nan") if value is None else scale * float(value) for value in values],
    )


def learning_curves(history: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Draw up the curves of a training.

    Args:
        history: One record per round, as ``train_adversarial`` keeps it.

    Returns:
        Dice round by round, returns, losses and exploration; none where nothing was recorded.
    """
    if not history:
        return []
    dice = {
        "ideal prompts": _series(history, "attacker/dice_before", 100),
        "under the greedy attacker": _series(history, "attacked_dice", 100),
        "after the exploring defender": _series(history, "defender/dice_after", 100),
    }
    curves = [
        Curve(
            "Dice on training scenes",
            "round",
            "mean Dice, %",
            dice,
            "Fresh scenes and another number of actions every round, so neighbours differ.",
        )
    ]
    plans = (
        ("Return of an episode", "return", 100, "Dice, points", "What exploration takes away is included."),
        ("Loss", "loss", 1, "loss", "Of the last gradient step of each round."),
        ("Exploration", "epsilon", 1, "epsilon", "Share of random actions."),
    )
    for title, key, scale, label, note in plans:
        series = {role: _series(history, f"{role}/{key}", scale) for role in ("attacker", "defender")}
        curves.append(Curve(title, "round", label, series, note))
    return curves
