"""Training images: procedural scenes, composites of photographs, and unsupervised regions of photographs."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from experiments.train_mini.prompts import draw_prompts
from ppd_env.scenes.mixed import AREA, SIDE, PhotoPool, draw, recolour, relight
from ppd_env.scenes.shapes import LabelledImage, ShapesConfig

PADDING = 255
OBJECTS = 5
SOURCES = ("shapes", "composite", "regions", "objects")


def pad_to_aspect(drawn: LabelledImage, rng: np.random.Generator) -> LabelledImage:
    """Cut an image to a random aspect ratio and pad it, as letterboxing does; masks hold PADDING there."""
    keep = int(SIDE / rng.uniform(1.05, 1.8))
    image, masks = drawn.image.copy(), drawn.masks.astype(np.uint8)
    if rng.random() < 0.7:
        image[keep:], masks[:, keep:] = 0, PADDING
    else:
        image[:, keep:], masks[:, :, keep:] = 0, PADDING
    return LabelledImage(image, masks)


class TrainingScenes(IterableDataset):
    """Endless training samples; the i-th of a seed is always the same, whoever draws it.

    Each sample is ``(image, masks, points, labels, clicks)``: (256, 256, 3) uint8, (OBJECTS, 256, 256) uint8
    with PADDING outside the image, (OBJECTS, MAX_POINTS, 2) float32, (OBJECTS, MAX_POINTS) int64 and
    (OBJECTS,) bool.

    Args:
        pool: Photographs.
        seed: First entry of every sample's random seed.
        shares: How often each of ``SOURCES`` is drawn from.
        start: Number of samples to skip, for a resumed run.
        part: (k, n): this process draws the k-th of n parts of them.
    """

    def __init__(
        self,
        pool: PhotoPool,
        seed: int,
        shares: tuple[float, ...],
        start: int = 0,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.pool, self.seed, self.shares, self.start, self.part = pool, seed, shares, start, part
        self.config = ShapesConfig()

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yield samples for ever."""
        cv2.setNumThreads(1)
        worker = get_worker_info()
        workers, mine = (worker.num_workers, worker.id) if worker else (1, 0)
        step = workers * self.part[1]
        index = self.start + mine * self.part[1] + self.part[0]
        while True:
            sample = self._draw(np.random.default_rng([self.seed, index]))
            if sample is not None:
                yield tuple(torch.from_numpy(part) for part in sample)
            index += step

    def _draw(self, rng: np.random.Generator) -> tuple[np.ndarray, ...] | None:
        kind = rng.choice(SOURCES, p=self.shares)
        drawn = draw(str(kind), self.pool, self.config, rng)
        if kind == "shapes" and rng.random() < 0.3:
            drawn = LabelledImage(recolour(drawn.image, rng), drawn.masks)
        if rng.random() < 0.5:
            drawn = LabelledImage(relight(drawn.image, rng), drawn.masks)
        if rng.random() < 0.3:
            drawn = pad_to_aspect(drawn, rng)
        masks = drawn.masks.astype(np.uint8)
        area = (masks == 1).mean(axis=(1, 2)) if len(masks) else np.zeros(0)
        fit = np.flatnonzero((area >= AREA[0]) & (area <= AREA[1]))
        if not len(fit):
            return None
        # Without replacement, in proportion to the root of the area: small parts are many, and soon learned.
        fit = fit[np.argsort(rng.exponential(size=len(fit)) / np.sqrt(area[fit]))]
        chosen = masks[np.resize(fit, OBJECTS)]
        points, labels, clicks = zip(*(draw_prompts(mask, rng) for mask in chosen), strict=True)
        return drawn.image, chosen, np.stack(points), np.stack(labels), np.array(clicks)
