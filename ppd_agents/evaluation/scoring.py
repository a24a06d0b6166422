"""Dice and IoU of prompt sets at native size, and all that was played on one set of scenes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ppd_agents.evaluation.stages import Stage
from ppd_env.metrics import dice, iou
from ppd_env.scenes.bank import SceneBank
from ppd_env.simulator import Simulator

_CHUNK = 32


@dataclass(frozen=True)
class Measurements:
    """Everything played on one bank.

    Args:
        bank: The scenes.
        rows: Row -> one stage per seed, of the first seeds only where others did not play it; the oracles'
            stages hold the first scenes only.
    """

    bank: SceneBank
    rows: dict[str, list[Stage]] = field(default_factory=dict)

    def dice(self, row: str, budget: int, scenes: int | None = None) -> np.ndarray:
        """Return Dice in percent, (seeds, S), of the first ``scenes`` scenes."""
        return np.stack([stage.at(budget)[1][:scenes] for stage in self.rows[row]])

    def iou(self, row: str, budget: int, scenes: int | None = None) -> np.ndarray:
        """Return IoU in percent, (seeds, S), of the first ``scenes`` scenes."""
        return np.stack([stage.at(budget)[2][:scenes] for stage in self.rows[row]])


class Scorer:
    """Dice and IoU of prompt sets at native size; ground truth is read once and kept as bits.

    Args:
        simulator: The scenes and their segmenter.
    """

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self._bits: dict[int, tuple[np.ndarray, tuple[int, int]]] = {}

    def truth(self, row: int) -> np.ndarray:
        """Return the native mask of a scene, (H, W) bool."""
        if row not in self._bits:
            mask = self.simulator.bank.raw(row).mask
            self._bits[row] = (np.packbits(mask), mask.shape)
        bits, (height, width) = self._bits[row]
        return np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool)

    def stage(self, status: dict[int, Tensor]) -> Stage:
        """Score the prompts (S, N) of every budget on the first S scenes."""
        scores = {budget: self._score(prompts) for budget, prompts in status.items()}
        return Stage(
            {budget: prompts.cpu().numpy() for budget, prompts in status.items()},
            {budget: score[0] for budget, score in scores.items()},
            {budget: score[1] for budget, score in scores.items()},
        )

    def _score(self, status: Tensor) -> tuple[np.ndarray, np.ndarray]:
        both = []
        for chunk in torch.arange(len(status)).split(_CHUNK):
            masks = self.simulator.native_masks(chunk, status[chunk.to(status.device)])
            for row, mask in zip(chunk.tolist(), masks, strict=True):
                truth = self.truth(row)
                both.append((100 * dice(mask, truth), 100 * iou(mask, truth)))
        scores = np.array(both)
        return scores[:, 0], scores[:, 1]
