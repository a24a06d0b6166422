"""``photos://train`` and ``photos://test``: real photographs inside scikit-image, with masks of ours.

The masks are polygons in ``photo_masks/NAME.json``, one file per photograph:
``{"photograph", "height", "width", "objects": [{"name", "outer": [[[x, y], ...], ...], "holes": [...],
"view": [left, top, right, bottom]}]}``, in whole pixels of the photograph. Every object is one scene;
``view`` crops the photograph around an object that would else fall between the patches of a 16 x 16 grid.
All scenes of a photograph lie on one side of the split and form one group, and so do both views of the
motorcycle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import cv2
import numpy as np

from ppd_env.errors import ConfigError, SceneError
from ppd_env.scenes.photo_split import TEST_PHOTOGRAPHS, TRAIN_PHOTOGRAPHS
from ppd_env.scenes.scene import RawScene
from ppd_env.uris import Uri

SPLITS = {"train": TRAIN_PHOTOGRAPHS, "test": TEST_PHOTOGRAPHS}
GROUPS = {"motorcycle_left": "motorcycle", "motorcycle_right": "motorcycle"}
"""Photographs of one scene share a group; every other photograph is its own."""

TEXTURES = ("brick", "grass", "gravel")
_MASKS = files("ppd_env.scenes") / "photo_masks"


@dataclass(frozen=True)
class PhotoObject:
    """One masked object of a photograph.

    Args:
        photograph: Name of the photograph.
        name: Name of the object, unique in its photograph.
        outer: Polygons that the object fills, each (k, 2) int32 (x, y) pixels.
        holes: Polygons cut out of it afterwards.
        size: (height, width) of the photograph in pixels.
        view: (left, top, right, bottom), the part of the photograph that is the scene's image.
    """

    photograph: str
    name: str
    outer: tuple[np.ndarray, ...]
    holes: tuple[np.ndarray, ...]
    size: tuple[int, int]
    view: tuple[int, int, int, int]

    def crop(self, image: np.ndarray) -> np.ndarray:
        """Return the scene's part of an array over the whole photograph."""
        left, top, right, bottom = self.view
        return image[top:bottom, left:right]

    def mask(self) -> np.ndarray:
        """Return the object as (H, W) bool over its view; pixels on a polygon's edge belong to the object."""
        canvas = np.zeros(self.size, np.uint8)
        for polygon in self.outer:
            cv2.fillPoly(canvas, [polygon], 1)
        for polygon in self.holes:
            cut = np.zeros(self.size, np.uint8)
            cv2.fillPoly(cut, [polygon], 1)
            cv2.polylines(cut, [polygon], isClosed=True, color=0)
            canvas[cut == 1] = 0
        return self.crop(canvas).astype(bool)


class PhotosSource:
    """The objects of one side of the split, photograph by photograph.

    Args:
        uri: ``photos://train`` or ``photos://test``; it takes no keys.

    Raises:
        ConfigError: Unknown side or key.
    """

    def __init__(self, uri: Uri) -> None:
        uri.require_keys(())
        if uri.path not in SPLITS:
            raise ConfigError(
                f"{uri.text!r}: unknown split {uri.path!r}; use photos://train or photos://test."
            )
        self.uri = uri.text
        self.split = uri.path
        self.objects = [entry for name in SPLITS[uri.path] for entry in photo_objects(name)]
        texts = [_mask_text(name) for name in SPLITS[uri.path]]
        self.signature = "photos-" + hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        """Return the number of masked objects."""
        return len(self.objects)

    def __getitem__(self, index: int) -> RawScene:
        """Return object ``index`` with its photograph.

        Raises:
            IndexError: The index is out of range.
            SceneError: The installed scikit-image holds another picture under that name.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.uri!r} has scenes 0 to {len(self) - 1}, not {index}.")
        entry = self.objects[index]
        image = photograph(entry.photograph)
        if image.shape[:2] != entry.size:
            raise SceneError(
                f"scikit-image's {entry.photograph}",
                f"is {image.shape[:2]} pixels (height, width), its masks were drawn on {entry.size}; "
                "install a scikit-image between 0.24 and 0.26.",
            )
        return RawScene(
            name=f"{entry.photograph}/{entry.name}",
            image=entry.crop(image).copy(),
            mask=entry.mask(),
            group=GROUPS.get(entry.photograph, entry.photograph),
        )


def photo_objects(name: str) -> list[PhotoObject]:
    """Return the masked objects of one photograph, in the order of its file."""
    content = json.loads(_mask_text(name))
    height, width = int(content["height"]), int(content["width"])
    return [
        PhotoObject(
            photograph=name,
            name=entry["name"],
            outer=_polygons(entry["outer"]),
            holes=_polygons(entry["holes"]),
            size=(height, width),
            view=tuple(entry.get("view", (0, 0, width, height))),
        )
        for entry in content["objects"]
    ]


@cache
def photograph(name: str) -> np.ndarray:
    """Return a photograph of scikit-image; nothing is downloaded.

    Args:
        name: A name of ``TRAIN_PHOTOGRAPHS`` or ``TEST_PHOTOGRAPHS``.

    Returns:
        (H, W, 3) uint8 RGB, read-only; greyscale ones with three equal channels.

    Raises:
        ConfigError: The name is unknown.
    """
    if name not in TRAIN_PHOTOGRAPHS + TEST_PHOTOGRAPHS:
        known = ", ".join(TRAIN_PHOTOGRAPHS + TEST_PHOTOGRAPHS)
        raise ConfigError(f"Unknown photograph {name!r}; known ones: {known}.")
    return _as_rgb(_loader(name)())


def train_photographs() -> dict[str, np.ndarray]:
    """Return the photographs that models may be trained on.

    Returns:
        Name -> (H, W, 3) uint8 RGB, read-only; none of the test side.
    """
    return {name: photograph(name) for name in TRAIN_PHOTOGRAPHS}


def textures() -> dict[str, np.ndarray]:
    """Return the photographs of plain surfaces that ship with scikit-image, free for training.

    Returns:
        Name -> (512, 512, 3) uint8 RGB with three equal channels, read-only.
    """
    from skimage import data

    return {name: _as_rgb(getattr(data, name)()) for name in TEXTURES}


def _loader(name: str) -> Callable[[], np.ndarray]:
    """Return the function of ``skimage.data`` that gives a photograph."""
    from skimage import data

    if name == "ihc":
        return data.immunohistochemistry
    if name == "motorcycle_left":
        return lambda: data.stereo_motorcycle()[0]
    if name == "motorcycle_right":
        return lambda: data.stereo_motorcycle()[1]
    return getattr(data, name)


def _as_rgb(image: np.ndarray) -> np.ndarray:
    """Return (H, W) or (H, W, 3) uint8 as read-only (H, W, 3)."""
    rgb = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3]
    rgb = np.ascontiguousarray(rgb)
    rgb.flags.writeable = False
    return rgb


def _polygons(lists: list[list[list[int]]]) -> tuple[np.ndarray, ...]:
    """Turn JSON polygons into arrays (k, 2) int32."""
    return tuple(np.asarray(points, np.int32).reshape(-1, 2) for points in lists)


def _mask_text(name: str) -> str:
    """Return the content of a photograph's mask file."""
    return (_MASKS / f"{name}.json").read_text(encoding="utf-8")
