"""``mixed://train?count=1000&seed=0``: procedural scenes, and scenes made of training photographs."""

from __future__ import annotations

import hashlib
import json
from functools import cache

import cv2
import numpy as np
from skimage.segmentation import felzenszwalb

from ppd_env.errors import ConfigError
from ppd_env.scenes.photos import PhotosSource, textures, train_photographs
from ppd_env.scenes.scene import RawScene
from ppd_env.scenes.shapes import LabelledImage, ShapesConfig, draw_scene
from ppd_env.scenes.shapes.generator import lay, photograph
from ppd_env.scenes.shapes.outlines import draw_outline
from ppd_env.scenes.shapes.textures import draw_texture, paint
from ppd_env.uris import Uri, parse_uri

SIDE = 256
AREA = (0.006, 0.6)
"""Least and greatest share of the image an object may cover."""

REGION_SCALES = (60, 200, 600, 1500)
SHARES = {"shapes": 0.5, "composite": 0.2, "regions": 0.15, "objects": 0.15}
"""How often each kind of scene is drawn."""

VERSION = 1
_RELIT = 0.3
_MAX_TRIES = 100


class PhotoPool:
    """Photographs of the training side, their unsupervised regions and their hand-made masks.

    Args:
        longest: Longer side the photographs are scaled to, in pixels.
    """

    def __init__(self, longest: int = 640) -> None:
        self.photos = [_limit(photo, longest) for photo in train_photographs().values()]
        self.materials = self.photos + [_limit(texture, longest) for texture in textures().values()]
        self.regions = [self._segment(photo) for photo in self.photos]
        scenes = PhotosSource(parse_uri("photos://train"))
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


def draw(kind: str, pool: PhotoPool, config: ShapesConfig, rng: np.random.Generator) -> LabelledImage:
    """Draw an image of one kind of ``SHARES`` with the masks of its objects."""
    if kind == "shapes":
        return draw_scene(config, rng)
    if kind == "composite":
        return composite(pool, config, rng)
    return regions(pool, rng) if kind == "regions" else objects(pool, rng)


@cache
def photo_pool() -> PhotoPool:
    """Return the photographs, made ready once per process (some seconds)."""
    return PhotoPool()


class MixedSource:
    """Scenes of all kinds of ``SHARES``; nothing of the photographs' test side is in them.

    Scene ``index`` depends on (seed, index) only, never on ``count``.

    Args:
        uri: ``mixed://train?count=N&seed=K``; count defaults to 1000, seed to 0.

    Raises:
        ConfigError: Another split than train, an unknown key, or a count below 1.
    """

    def __init__(self, uri: Uri) -> None:
        uri.require_keys({"count", "seed"})
        if uri.path != "train":
            raise ConfigError(
                f"{uri.text!r}: mixed scenes are for training only; use mixed://train, and measure on "
                "shapes://test or photos://test."
            )
        self.uri = uri.text
        self.count = uri.integer("count", 1000)
        self.seed = uri.integer("seed", 0)
        if self.count < 1 or self.seed < 0:
            raise ConfigError(f"{uri.text!r}: count must be at least 1 and seed at least 0.")
        self.config = ShapesConfig()
        facts = [VERSION, self.config.digest(), SHARES, AREA, REGION_SCALES, _RELIT]
        self.signature = "mixed-" + hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        """Return the count."""
        return self.count

    def __getitem__(self, index: int) -> RawScene:
        """Draw scene ``index`` and choose one of its objects as the target.

        Raises:
            IndexError: The index is out of range.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"{self.uri!r} has scenes 0 to {self.count - 1}, not {index}.")
        rng = np.random.default_rng([self.seed, index])
        kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
        low, high = self.config.target_area
        for _ in range(_MAX_TRIES):
            drawn = draw(kind, photo_pool(), self.config, rng)
            area = drawn.masks.mean(axis=(1, 2)) if len(drawn.masks) else np.zeros(0)
            fit = np.flatnonzero((area >= low) & (area <= high))
            if len(fit):
                image = relight(drawn.image, rng) if rng.random() < _RELIT else drawn.image
                name = f"mixed-{kind}-{self.seed}-{index:06d}"
                return RawScene(name=name, image=image, mask=drawn.masks[int(rng.choice(fit))], group=name)
        raise RuntimeError(f"No target of {low:.0%} to {high:.0%} of the image in {_MAX_TRIES} drawings.")
