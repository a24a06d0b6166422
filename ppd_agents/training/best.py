"""Which moment of a training was the best, told from what its rounds recorded anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WINDOW = 5
"""Rounds a score looks back on: one round's T and scenes say more about its return than the agents do."""

LEAST_HARM = 0.05
"""Dice the attacks must have cost on average; a share of less is noise (as in the tables)."""

CRITERION = (
    f"Dice the defender won back / Dice the attacks had cost, both summed over the last {WINDOW} rounds, "
    "clean, partly attacked and feature-matching starts and exploration included; higher is better"
)
"""What ``score`` is, in words, for manifests and agents' notes."""


def score(history: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the recovery of the training's last rounds.

    A sum over rounds, because T differs from round to round: of a short attack's little harm any share can
    come back by chance, and a mean of shares would follow that.

    Args:
        history: One record per round, as ``train_adversarial`` keeps it.

    Returns:
        The share (1: all harm undone, negative: more harm done), or None before ``WINDOW`` rounds are played
        and where the attacks cost less than ``LEAST_HARM``.
    """
    last = history[-WINDOW:]
    # Both roles begin with the same scenes; what the prompts differ in is what was done to the defender's: an
    # attack, or feature matching in place of ideal prompts, whose errors the defender is to mend as well.
    harm = sum(record["attacker/dice_before"] - record["defender/dice_before"] for record in last)
    if len(last) < WINDOW or harm < LEAST_HARM * WINDOW:
        return None
    return float(sum(record["defender/return"] for record in last) / harm)
