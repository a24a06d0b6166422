"""Chooses scenes for the gallery by rule, so that nobody can pick the pretty ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from ppd_agents.evaluation.scoring import Measurements
from ppd_agents.report.gallery import GalleryScene, Panel
from ppd_agents.report.html import Gallery
from ppd_agents.report.summary import set_title
from ppd_env.simulator import Simulator

HARMED = 20.0
"""Points of Dice an attack must cost for its scene to be shown, where enough scenes are."""

PANELS = (("Ideal", "ideal"), ("Attacked", "attack.learned"), ("Defended", "defence.learned"))


def varied(loss: np.ndarray, groups: Sequence[str], count: int) -> np.ndarray:
    """Keep, of every group, only so many scenes (those that lost most) that ``count`` need all groups.

    Args:
        loss: (S,) points of Dice lost.
        groups: S groups, such as photographs.
        count: Scenes wanted.

    Returns:
        Indices in ascending order.
    """
    most = -(-count // len(set(groups)))
    kept: list[int] = []
    seen: Counter[str] = Counter()
    for index in np.argsort(-loss, kind="stable").tolist():
        seen[groups[index]] += 1
        if seen[groups[index]] <= most:
            kept.append(index)
    return np.array(sorted(kept))


def spread(ideal: np.ndarray, attacked: np.ndarray, defended: np.ndarray, count: int) -> list[int]:
    """Choose scenes at even steps from the largest to the smallest recovery.

    Args:
        ideal: (S,) Dice in percent.
        attacked: (S,) Dice in percent.
        defended: (S,) Dice in percent.
        count: Scenes wanted.

    Returns:
        At most ``count`` indices, among the scenes that lost ``HARMED`` points if there are as many, else
        among those that lost most.
    """
    loss = ideal - attacked
    harmed = np.flatnonzero(loss >= HARMED)
    if len(harmed) < count:
        harmed = np.argsort(-loss, kind="stable")[:count]
    share = (defended - attacked)[harmed] / np.maximum(loss[harmed], 1e-9)
    ranked = harmed[np.argsort(-share, kind="stable")]
    steps = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
    return [int(index) for index in ranked[steps]]


def gallery(found: Measurements, simulator: Simulator, budget: int, count: int = 6) -> Gallery:
    """Show scenes of one set under one budget.

    Args:
        found: What was played on it; the first seed is shown.
        simulator: Its scenes and their segmenter.
        budget: Number of attack actions.
        count: Scenes wanted.

    Returns:
        The gallery.
    """
    bank = found.bank
    scores = [found.dice(row, budget)[0] for _, row in PANELS]
    scenes = []
    candidates = varied(scores[0] - scores[1], bank.groups, count)
    ideal, attacked, defended = (score[candidates] for score in scores)
    chosen = spread(ideal, attacked, defended, count)
    for row in candidates[chosen].tolist():
        raw = bank.raw(row)
        status = np.stack([found.rows[name][0].at(budget)[0][row] for _, name in PANELS])
        rows = torch.full((len(PANELS),), row, dtype=torch.int64)
        masks = simulator.native_masks(rows, torch.from_numpy(status))
        panels = [
            Panel(title, status[index], masks[index], float(scores[index][row]))
            for index, (title, _) in enumerate(PANELS)
        ]
        scenes.append(GalleryScene(raw.name, raw.image, raw.mask, bank.points[row].cpu().numpy(), panels))
    note = (
        "Not hand-picked: even steps from the largest to the smallest recovery, among scenes that lost at "
        f"least {HARMED:.0f} points of Dice where there are enough of them, and no photograph far more often "
        "than others."
    )
    return Gallery(f"{set_title(bank.uri)}, {budget} actions", note, scenes)
