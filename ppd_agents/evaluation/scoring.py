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


class _Bits:
    """A mask (H, W) bool at an eighth of its size.

    Args:
        mask: The mask.
    """

    def __init__(self, mask: np.ndarray) -> None:
        self._shape = mask.shape
        self._packed = np.packbits(mask)

    def mask(self) -> np.ndarray:
        """Return the mask, (H, W) bool."""
        count = self._shape[0] * self._shape[1]
        return np.unpackbits(self._packed, count=count).reshape(self._shape).astype(bool)


class Scorer:
    """Dice and IoU of prompt sets at native size; ground truth is read once and kept as bits.

    Args:
        simulator: The scenes and their segmenter.
    """

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self._kept: dict[int, tuple[_Bits, _Bits | None]] = {}

    def truth(self, row: int) -> np.ndarray:
        """Return the native mask of a scene, (H, W) bool."""
        return self._read(row)[0].mask()

    def void(self, row: int) -> np.ndarray | None:
        """Return the pixels of a scene that count neither way, (H, W) bool; None where all count."""
        void = self._read(row)[1]
        return None if void is None else void.mask()

    def _read(self, row: int) -> tuple[_Bits, _Bits | None]:
        if row not in self._kept:
            scene = self.simulator.bank.raw(row)
            self._kept[row] = (_Bits(scene.mask), None if scene.void is None else _Bits(scene.void))
        return self._kept[row]

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
                truth, void = self.truth(row), self.void(row)
                both.append((100 * dice(mask, truth, void), 100 * iou(mask, truth, void)))
        scores = np.array(both)
        return scores[:, 0], scores[:, 1]
