"""A scene bank bound to its segmenter: statuses in, masks and their Dice out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ppd_env.cores import on_all_cores
from ppd_env.game.actions import INACTIVE, POSITIVE
from ppd_env.metrics import batch_dice
from ppd_env.segmenters.contract import ABSENT, Segmenter, native_logits

if TYPE_CHECKING:
    from ppd_env.scenes.bank import SceneBank

EMPTY_LOGIT = -10.0
"""Logit of every cell of a game without prompts: nothing is decoded, the mask is empty."""

_BATCH = 64
"""Prompt sets decoded at once on a CPU."""

_LARGEST_BATCH, _BYTES_A_SET = 256, 2**28
"""The same on a GPU: one set for so many bytes of its memory, most of which stay free, but no fewer than on a
CPU. Small decoders take about as long for 256 sets as for one."""

_SMALLEST_SHARE = 16
"""Prompt sets from which it pays to give a core a batch of its own."""

FEEDBACK_SAMPLES = 4
"""Samples per patch side when the predicted foreground of a patch is measured."""


@dataclass(frozen=True)
class Segmentation:
    """What the segmenter made of B prompt sets.

    Args:
        dice: (B,) float32, Dice of the low-resolution mask over the cells that count; at native size where
            the simulator is asked for it.
        predicted_iou: (B,) float32, the segmenter's own estimate; 0 without prompts.
        logits: (B, h, w) float32, threshold 0; ``EMPTY_LOGIT`` everywhere without prompts.
    """

    dice: Tensor
    predicted_iou: Tensor
    logits: Tensor

    def __getitem__(self, which: Tensor | slice) -> Segmentation:
        """Return the prompt sets ``which`` (index tensor or slice)."""
        return Segmentation(self.dice[which], self.predicted_iou[which], self.logits[which])


def covered(share: Tensor) -> Tensor:
    """Tell which patches a mask covers, by its ``feedback``.

    Half of the most covered patch is enough, so that an object smaller than every patch is still seen.

    Args:
        share: (B, N) float32, share of predicted foreground per patch.

    Returns:
        (B, N) bool; nothing where the mask is empty.
    """
    return (share > 0) & (share >= share.amax(dim=1, keepdim=True) / 2)


def batch_for(device: torch.device) -> int:
    """Return how many prompt sets to decode at once: 64, and up to 256 on a GPU with memory for them."""
    if device.type != "cuda":
        return _BATCH
    memory = torch.cuda.get_device_properties(device).total_memory
    return max(_BATCH, min(_LARGEST_BATCH, memory // _BYTES_A_SET))


class Simulator:
    """Decodes prompt sets of a bank's scenes in large, nearly even batches.

    Args:
        bank: The scenes.
        segmenter: The segmenter whose embedding the bank holds.
        max_batch: Prompt sets decoded at once; None: see ``batch_for``.
        resolution: Where Dice is measured: ``"low"``, on the low-resolution square, which costs next to
            nothing beside the decode; or ``"native"``, which reads each scene's mask again once, keeps it and
            brings all logits to its size.
    """

    def __init__(
        self,
        bank: SceneBank,
        segmenter: Segmenter,
        max_batch: int | None = None,
        resolution: Literal["low", "native"] = "low",
    ) -> None:
        self.bank = bank
        self.segmenter = segmenter
        self.max_batch = batch_for(bank.device) if max_batch is None else max_batch
        self.resolution = resolution
        self._native_truth: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._parallel = getattr(segmenter, "reentrant", False) and bank.device.type == "cpu"

    @property
    def nodes(self) -> int:
        """N, nodes per scene."""
        return self.bank.features.shape[1]

    @torch.no_grad()
    def segment(self, rows: Tensor, status: Tensor) -> Segmentation:
        """Segment B prompt sets; equal ones are decoded once, empty ones not at all.

        Args:
            rows: (B,) int64, rows of the bank.
            status: (B, N) int8.

        Returns:
            The masks and their Dice, on the bank's device.
        """
        rows, status = rows.to(self.bank.device), status.to(self.bank.device)
        if len(rows) == 1:
            return self._decode(rows, status)
        keys = torch.cat([rows[:, None].to(torch.int32), status.to(torch.int32)], dim=1)
        unique, inverse = keys.unique(dim=0, return_inverse=True)
        if len(unique) < len(keys):
            return self._decode(unique[:, 0].to(torch.int64), unique[:, 1:].to(torch.int8))[inverse]
        return self._decode(rows, status)

    def _decode(self, rows: Tensor, status: Tensor) -> Segmentation:
        """Decode all sets that hold a prompt, smallest first so that a chunk pads little."""
        side, device = self.segmenter.low_res, self.bank.device
        logits = torch.full((len(rows), side, side), EMPTY_LOGIT, device=device)
        predicted = torch.zeros(len(rows), device=device)
        counts = (status != INACTIVE).sum(dim=1)
        order = counts.argsort()
        order = order[counts[order] > 0]

        def decode(chunk: Tensor) -> None:
            # Results are copied out: tensors born in inference mode could not serve as training targets.
            with torch.inference_mode():
                points, labels = self._prompts(rows[chunk], status[chunk], int(counts[chunk[-1]]))
                masks, estimate = self.segmenter.decode(self.bank.embedding, points, labels, rows=rows[chunk])
            with torch.no_grad():
                logits[chunk], predicted[chunk] = masks[:, 0], estimate[:, 0]

        if self._parallel:
            on_all_cores(decode, self._chunks(order))
        else:
            for chunk in self._chunks(order):
                decode(chunk)
        if self.resolution == "native":
            return Segmentation(self.native_dice(rows, logits), predicted, logits)
        score = batch_dice(logits > 0, self.bank.target[rows], self.bank.counted[rows])
        return Segmentation(score, predicted, logits)

    def _chunks(self, order: Tensor) -> Sequence[Tensor]:
        """Split into chunks of at most ``max_batch``; even ones, as many for each core, where cores share."""
        threads = torch.get_num_threads()
        if not self._parallel or len(order) < threads * _SMALLEST_SHARE:
            return order.split(self.max_batch) if len(order) else ()
        count = threads * math.ceil(len(order) / (threads * self.max_batch))
        return order.tensor_split(min(count, len(order)))

    def _prompts(self, rows: Tensor, status: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Gather active nodes: points (B, width, 2) float32, labels (B, width) int64, absent slots last."""
        slots = (status == INACTIVE).to(torch.int8).argsort(dim=1, stable=True)[:, :width]
        held = status.gather(1, slots)
        labels = (held == POSITIVE).long().masked_fill(held == INACTIVE, ABSENT)
        return self.bank.points[rows[:, None], slots], labels

    @torch.no_grad()
    def feedback(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Return the share of predicted foreground in each node's patch; it uses no ground truth.

        Args:
            rows: (B,) int64.
            logits: (B, h, w) float32.

        Returns:
            (B, N) float32 in [0, 1].
        """
        samples = self.bank.grid * FEEDBACK_SAMPLES
        axis = (torch.arange(samples, device=logits.device) + 0.5) / samples
        extent = self._extent(rows) * 2 / logits.shape[-1]
        y = axis[None, :, None] * extent[:, :1, None] - 1
        x = axis[None, None, :] * extent[:, 1:, None] - 1
        where = torch.stack(torch.broadcast_tensors(x, y), dim=-1)
        mask = (logits > 0).to(torch.float32)[:, None]
        drawn = F.grid_sample(mask, where, mode="nearest", align_corners=False)
        return F.avg_pool2d(drawn, FEEDBACK_SAMPLES).flatten(1)

    def _extent(self, rows: Tensor) -> Tensor:
        """Return the (height, width) of each image inside the low-resolution square, (B, 2) float32 cells."""
        valid = self.bank.valid[rows]
        return torch.stack([valid.any(dim=2).sum(dim=1), valid.any(dim=1).sum(dim=1)], dim=1).float()

    @torch.no_grad()
    def native_dice(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Return the Dice of masks at the size of their images, measured on the bank's device.

        Args:
            rows: (B,) int64.
            logits: (B, h, w) float32.

        Returns:
            (B,) float32.
        """
        scores = []
        for row, one in zip(rows.tolist(), logits, strict=True):
            truth, counted = self._truth(row)
            mask = native_logits(self.segmenter, one, (truth.shape[1], truth.shape[2])) > 0
            scores.append(batch_dice(mask[None], truth, counted))
        return torch.cat(scores) if scores else logits.new_zeros(0)

    def _truth(self, row: int) -> tuple[Tensor, Tensor | None]:
        """Return a scene's mask and the pixels that count, (1, H, W) bool; None where all of them do."""
        if row not in self._native_truth:
            scene, device = self.bank.raw(row), self.bank.device
            counted = None if scene.void is None else torch.from_numpy(~scene.void)[None].to(device)
            self._native_truth[row] = torch.from_numpy(scene.mask.copy())[None].to(device), counted
        return self._native_truth[row]

    @torch.no_grad()
    def native_masks(self, rows: Tensor, status: Tensor) -> list[np.ndarray]:
        """Segment B prompt sets at native size.

        Args:
            rows: (B,) int64.
            status: (B, N) int8.

        Returns:
            B masks, (H, W) bool each.
        """
        return self.masks_at_native_size(rows, self.segment(rows, status).logits)

    def masks_at_native_size(self, rows: Tensor, logits: Tensor) -> list[np.ndarray]:
        """Bring logits (B, h, w) to native size and threshold them: B masks, (H, W) bool each."""
        sizes = self.bank.embedding.sizes[rows.to(self.bank.device)].tolist()
        return [
            (native_logits(self.segmenter, one, (int(height), int(width))) > 0).cpu().numpy()
            for one, (height, width) in zip(logits, sizes, strict=True)
        ]
