"""One-shot prompts: feature matching from one reference scene each, chosen by a recorded rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ppd_env.errors import ConfigError
from ppd_env.prompting.coverage import patch_coverage
from ppd_env.prompting.matching import matching_prompts
from ppd_env.scenes.bank import SceneBank
from ppd_env.scenes.scene import scene_class

REFERENCE_RULE = (
    "drawn by seed among the other scenes of the same class (the class folder in a scene's name), never of "
    "the same image; among all scenes of other images where the class has none"
)
"""How the reference of each scene is chosen, in words for the result file."""


def reference_rows(bank: SceneBank, rngs: Sequence[np.random.Generator]) -> list[int]:
    """Choose the reference of every scene by ``REFERENCE_RULE``.

    Args:
        bank: S scenes.
        rngs: S generators.

    Returns:
        S rows of the bank.

    Raises:
        ConfigError: All scenes come from one image.
    """
    classes = np.array([scene_class(name) for name in bank.names])
    groups = np.array(bank.groups)
    chosen = []
    for row, rng in enumerate(rngs):
        elsewhere = groups != groups[row]
        candidates = np.flatnonzero(elsewhere & (classes == classes[row]))
        if not len(candidates):
            candidates = np.flatnonzero(elsewhere)
        if not len(candidates):
            raise ConfigError(
                f"{bank.uri!r} holds scenes of one image only: one-shot matching needs another as reference."
            )
        chosen.append(int(rng.choice(candidates)))
    return chosen


def matching_statuses(
    bank: SceneBank,
    references: Sequence[int],
    truth: Callable[[int], np.ndarray],
    void: Callable[[int], np.ndarray | None] = lambda row: None,
) -> Tensor:
    """Match every scene with its reference (``matching_prompts``).

    Args:
        bank: S scenes.
        references: S rows of the bank.
        truth: Returns the native mask of a row, (H, W) bool; asked for references only.
        void: Returns the pixels of a row that count neither way, (H, W) bool or None; likewise.

    Returns:
        (S, N) int8.
    """
    coverage = {row: patch_coverage(truth(row), bank.grid, void(row)) for row in set(references)}
    matched = [
        matching_prompts(bank.features[reference], coverage[reference], bank.features[row])
        for row, reference in enumerate(references)
    ]
    return torch.from_numpy(np.stack(matched))
