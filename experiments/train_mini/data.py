"""Training images: procedural scenes, composites of photographs, and unsupervised regions of photographs."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from skimage.segmentation import felzenszwalb
from torch.utils.data import IterableDataset, get_worker_info

from experiments.train_mini.prompts import draw_prompts
from ppd_env.scenes.photos import textures, train_photographs
from ppd_env.scenes.shapes import LabelledImage, ShapesConfig, draw_scene
from ppd_env.scenes.shapes.generator import lay, photograph
from ppd_env.scenes.shapes.outlines import draw_outline
from ppd_env.scenes.shapes.textures import draw_texture, paint
from ppd_env.scenes.sources import open_source

SIDE = 256
PADDING = 255
OBJECTS = 5
AREA = (0.006, 0.6)
REGION_SCALES = (60, 200, 600, 1500)
SOURCES = ("shapes", "composite", "regions", "objects")


class PhotoPool:
    """Photographs of the training side, their unsupervised regions and their hand-made masks.

    Args:
        longest: Longer side the photographs are scaled to, in pixels.
    """

    def __init__(self, longest: int = 640) -> None:
        self.photos = [_limit(photo, longest) for photo in train_photographs().values()]
        self.materials = self.photos + [_limit(texture, longest) for texture in textures().values()]
        self.regions = [self._segment(photo) for photo in self.photos]
        scenes = open_source("photos://train")
        pairs = [(scenes[index].image, scenes[index].mask.astype(np.uint8)) for index in range(len(scenes))]
        self.objects = [(_limit(image, longest), _limit(mask, longest)) for image, mask in pairs]

    @staticmethod
    def _segment(photo: np.ndarray) -> list[np.ndarray]:
        """Label maps of one photograph, fine to coarse (Felzenszwalb and Huttenlocher 2004)."""
        small = cv2.GaussianBlur(photo, (0, 0), 0.8)
        return [
            felzenszwalb(small, scale=scale, sigma=0.5, min_size=80).astype(np.int32)
            for scale in REGION_SCALES
        ]

    def material(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """Return a (height, width, 3) uint8 piece of a photograph, turned, scaled and recoloured."""
        photo = self.materials[int(rng.integers(len(self.materials)))]
        (piece,) = crop([photo], rng, height, width, float(np.exp(rng.uniform(np.log(0.4), np.log(2.0)))))
        return recolour(piece, rng)


def _limit(image: np.ndarray, longest: int) -> np.ndarray:
    scale = longest / max(image.shape[:2])
    return image if scale >= 1 else cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def crop(
    layers: list[np.ndarray], rng: np.random.Generator, height: int, width: int, zoom: float
) -> list[np.ndarray]:
    """Cut the same random, flipped and turned rectangle out of several layers.

    Args:
        layers: Arrays (H, W[, 3]); three axes are images, two are labels (scaled without mixing).
        rng: Decides where.
        height: Rows of the result.
        width: Columns of the result.
        zoom: Pixels of the result per pixel of the layer; raised where the layer is too small.

    Returns:
        Arrays (height, width[, 3]).
    """
    rows, columns = layers[0].shape[:2]
    zoom = max(zoom, height / rows, width / columns)
    h, w = max(1, int(height / zoom)), max(1, int(width / zoom))
    top, left = int(rng.integers(0, rows - h + 1)), int(rng.integers(0, columns - w + 1))
    flip, turn = rng.random() < 0.5, int(rng.integers(4)) if height == width else 0
    out = []
    for layer in layers:
        piece = layer[top : top + h, left : left + w]
        method = cv2.INTER_NEAREST if layer.ndim == 2 else (cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
        piece = cv2.resize(piece, (width, height), interpolation=method)
        piece = np.rot90(piece[:, ::-1] if flip else piece, turn)
        out.append(np.ascontiguousarray(piece))
    return out


def recolour(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast, saturation and white balance of an (H, W, 3) uint8 image."""
    x = image.astype(np.float32)
    if rng.random() < 0.4:
        grey = x.mean(axis=2, keepdims=True)
        x = grey + float(rng.choice((0.0, rng.uniform(0, 1.8)), p=(0.2, 0.8))) * (x - grey)
    if rng.random() < 0.25:
        x = x[..., rng.permutation(3)]
    mean = x.mean()
    x = mean + (x - mean) * float(np.exp(rng.normal(0, 0.25))) + rng.normal(0, 20)
    x = x * np.exp(rng.normal(0, 0.12, 3)).astype(np.float32)
    return np.ascontiguousarray(np.clip(x, 0, 255).astype(np.uint8))


def relight(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Let uneven, slightly coloured light fall on an (H, W, 3) uint8 image.

    One surface then looks different from place to place, as on anything round: edges tell more than colours.
    """
    side = int(rng.integers(2, 6))
    light = rng.normal(0, rng.uniform(0.1, 0.5), (side, side, 1)) + rng.normal(0, 0.06, (side, side, 3))
    field = cv2.resize(light.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(image * np.exp(field), 0, 255).astype(np.uint8)


def composite(pool: PhotoPool, config: ShapesConfig, rng: np.random.Generator) -> LabelledImage:
    """Draw a scene whose background and objects are pieces of photographs.

    Some objects are of the background's own material, tinted: nothing but their edge and shading shows them,
    as with a polyp.
    """
    ground = pool.materials[int(rng.integers(len(pool.materials)))]

    def surface(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        if rng.random() < 0.7:
            return pool.material(rng, height, width)
        return paint(draw_texture(rng), rng, height, width)

    def camouflage(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        (piece,) = crop([ground], rng, height, width, zoom)
        return np.clip(piece + rng.normal(0, 14) + rng.normal(0, 8, 3), 0, 255).astype(np.uint8)

    zoom = float(np.exp(rng.uniform(np.log(0.5), np.log(2.0))))
    plain = rng.random() < 0.3
    canvas = np.ascontiguousarray((surface if plain else camouflage)(rng, SIDE, SIDE), np.float32)
    masks: list[np.ndarray] = []
    for _ in range(int(rng.integers(1, 6))):
        radius = float(np.exp(rng.uniform(np.log(0.1), np.log(0.45)))) * SIDE
        centre = rng.uniform(0.08, 0.92, 2) * SIDE
        mask = draw_outline(rng, SIDE, (float(centre[0]), float(centre[1])), radius)
        if mask.any():
            painter = camouflage if not plain and rng.random() < 0.35 else surface
            lay(canvas, mask, painter, rng, shadow=rng.random() < config.shadow)
            masks = [old & (mask == 0) for old in masks]
            masks.append(mask > 0)
    image = recolour(np.clip(canvas, 0, 255).astype(np.uint8), rng).astype(np.float32)
    return LabelledImage(photograph(config, image, rng), np.array(masks).reshape(-1, SIDE, SIDE))


def regions(pool: PhotoPool, rng: np.random.Generator) -> LabelledImage:
    """Cut a piece of a photograph and take its unsupervised regions as objects."""
    which = int(rng.integers(len(pool.photos)))
    labels = pool.regions[which][int(rng.integers(len(REGION_SCALES)))]
    zoom = float(np.exp(rng.uniform(np.log(0.5), np.log(2.5))))
    image, cut = crop([pool.photos[which], labels], rng, SIDE, SIDE, zoom)
    names, counts = np.unique(cut, return_counts=True)
    fit = names[(counts >= AREA[0] * SIDE**2) & (counts <= AREA[1] * SIDE**2)]
    masks = np.array([cut == name for name in rng.permutation(fit)[:8]]).reshape(-1, SIDE, SIDE)
    return LabelledImage(recolour(image, rng), masks)


def objects(pool: PhotoPool, rng: np.random.Generator) -> LabelledImage:
    """Cut a piece of a photograph around one of its hand-made masks."""
    image, mask = pool.objects[int(rng.integers(len(pool.objects)))]
    zoom = SIDE / min(image.shape[:2]) * float(np.exp(rng.uniform(0, np.log(3.0))))
    cut, shown = image, mask
    for _ in range(8):
        cut, shown = crop([image, mask], rng, SIDE, SIDE, zoom)
        if shown.mean() >= AREA[0]:
            break
    return LabelledImage(recolour(cut, rng), shown[None] > 0)


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
        if kind == "shapes":
            drawn = draw_scene(self.config, rng)
            if rng.random() < 0.3:
                drawn = LabelledImage(recolour(drawn.image, rng), drawn.masks)
        elif kind == "composite":
            drawn = composite(self.pool, self.config, rng)
        elif kind == "regions":
            drawn = regions(self.pool, rng)
        else:
            drawn = objects(self.pool, rng)
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
