"""Images and masks from files, with errors that name the file, the reason and the remedy.

Rules: EXIF rotation is applied; greyscale is replicated to RGB; transparency is composited on white; images
whose longer side exceeds ``MAX_SIDE`` are scaled down to it, their masks likewise. Images must have 8 bits
per channel; masks may have 16. A mask without ``threshold`` or ``class`` holds 0 and at most one other value,
the foreground, beside its void value where the rule names one.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from ppd_env.errors import SceneError

MAX_SIDE = 4096
"""Longer side, in pixels, above which an image and its mask are scaled down."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
"""File name endings (lower case) that are taken for images."""

_PLAIN_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 0x0102
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class MaskRule:
    """Which values of a mask are foreground.

    Args:
        threshold: Values of at least this much, or None.
        category: This very value, or None. Without either: every value but 0, if there is only one.
        void: Pixels of this value count neither as foreground nor as background, whatever else the rule says.
        brightness: Coloured masks are read by their brightness (for masks saved as JPEG, whose colours are
            noise), transparency is overlooked; otherwise they are errors.
    """

    threshold: int | None = None
    category: int | None = None
    void: int | None = None
    brightness: bool = False


@dataclass(frozen=True)
class Pair:
    """An image and its mask, as read.

    Args:
        image: (H, W, 3) uint8 RGB, upright, longer side at most ``MAX_SIDE``.
        mask: (H, W) bool, not empty.
        void: (H, W) bool, pixels that count neither way, none of them in the mask; None where there is none.
    """

    image: np.ndarray
    mask: np.ndarray
    void: np.ndarray | None = None


def read_image(path: Path) -> np.ndarray:
    """Read an image.

    Args:
        path: The file.

    Returns:
        (H, W, 3) uint8 RGB, upright, longer side at most ``MAX_SIDE``.

    Raises:
        SceneError: The file cannot be used.
    """
    return read_sized_image(path)[0]


def read_pair(image_path: Path, mask_path: Path, rule: MaskRule) -> Pair:
    """Read an image and its mask.

    Args:
        image_path: The image's file.
        mask_path: The mask's file; as large as the image after EXIF rotation.
        rule: What is foreground.

    Returns:
        The pair.

    Raises:
        SceneError: One of the two files cannot be used.
    """
    image, size = read_sized_image(image_path)
    values = read_values(mask_path, brightness=rule.brightness)
    if values.shape != size:
        raise SceneError(str(mask_path), _size_reason(values.shape, size, image_path))
    void = None if rule.void is None else values == rule.void
    return fitted(image, _foreground(values, rule, void, mask_path), void)


def fitted(image: np.ndarray, mask: np.ndarray, void: np.ndarray | None) -> Pair:
    """Scale masks drawn on an image's own size down to the size it was read in.

    Args:
        image: (H, W, 3) uint8.
        mask: (height, width) bool, the image's size before it was scaled down; not empty.
        void: The same, pixels that count neither way; None without.

    Returns:
        The pair; its mask is not empty, and a pixel of the mask is never void.
    """
    size = image.shape[:2]
    mask = _shrink_mask(mask, size)
    if void is not None:
        void = _shrink_mask(void, size) & ~mask if void.any() else None
    return Pair(image, mask, void if void is not None and void.any() else None)


def read_sized_image(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """Read an image, and tell how large it was.

    Args:
        path: The file.

    Returns:
        The image as ``read_image`` gives it, and its upright (height, width) before it was scaled down.

    Raises:
        SceneError: The file cannot be used.
    """
    with _opened(path) as picture:
        _require_eight_bits(picture, path)
        width, height = picture.size
        if max(width, height) > MAX_SIDE:
            picture.draft(None, (MAX_SIDE, MAX_SIDE))  # lets JPEG decode at a fraction of its size
        drafted = picture.size != (width, height)
        picture.load()
        if not drafted:
            width, height = picture.size  # Pillow turns TIFF upright while loading
        orientation = picture.getexif().get(_ORIENTATION, 1)
        rgb = _as_rgb(picture)
        ratio = min(1.0, MAX_SIDE / max(width, height))
        box = (max(1, round(width * ratio)), max(1, round(height * ratio)))
        if rgb.size != box:
            rgb = rgb.resize(box, Image.Resampling.BOX)
        size = (width, height) if orientation in _SIDEWAYS else (height, width)
        return np.array(_upright(rgb, orientation)), size


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    """Undo an EXIF orientation."""
    return picture.transpose(_TURNS[orientation]) if orientation in _TURNS else picture


def _as_rgb(picture: Image.Image) -> Image.Image:
    """Return the picture in RGB, transparent parts on white."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        flat = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        flat.alpha_composite(layer)
        return flat.convert("RGB")
    return picture.convert("RGB")


def read_values(path: Path, brightness: bool = False) -> np.ndarray:
    """Read a mask's stored values.

    Args:
        path: The file.
        brightness: See ``MaskRule``.

    Returns:
        (H, W) of any integer type or bool; palette masks give their indices.

    Raises:
        SceneError: The file cannot be used, or its channels differ.
    """
    with _opened(path) as picture:
        picture.load()
        upright = _upright(picture, picture.getexif().get(_ORIENTATION, 1))
        if brightness and upright.mode in ("LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
            return np.array(upright.convert("RGB").convert("L"))
        if upright.mode == "F":
            raise SceneError(
                str(path), "holds fractions; save the mask with whole numbers, 0 for background."
            )
        if upright.mode in ("1", "L", "P") or upright.mode.startswith("I"):
            return np.array(upright)
        if upright.mode not in ("LA", "PA", "RGB", "RGBA") or _is_deep(picture, path):
            raise SceneError(str(path), f"has mode {upright.mode}; save the mask with one channel of 8 bits.")
        values = np.array(upright)
    alpha = {"LA": 1, "PA": 1, "RGBA": 3}.get(upright.mode)
    if alpha is not None:
        if values[..., alpha].min() < 255:
            raise SceneError(str(path), "is a partly transparent mask; save it without an alpha channel.")
        values = values[..., :alpha]
    if (values != values[..., :1]).any():
        raise SceneError(str(path), "is a coloured mask; save it with one channel, 0 for background.")
    return values[..., 0]


def _foreground(values: np.ndarray, rule: MaskRule, void: np.ndarray | None, path: Path) -> np.ndarray:
    """Turn a mask's values into (H, W) bool, never where ``void``.

    Raises:
        SceneError: No pixel is foreground, or the values leave open which ones are.
    """
    if rule.category is not None:
        mask, wanted = values == rule.category, f"has the value {rule.category}"
    elif rule.threshold is not None:
        mask, wanted = values >= rule.threshold, f"reaches {rule.threshold}"
    else:
        found = _distinct(values)
        found = found[found != rule.void] if rule.void is not None else found
        if len(found) > 2 or (len(found) == 2 and found[0] != 0):
            raise SceneError(
                str(path),
                f"has {len(found)} values ({_listed(found)}), so its foreground is not clear; add "
                "threshold=T to the URI for values of at least T, or class=K for the value K.",
            )
        mask, wanted = values != 0, "differs from 0"
    if void is not None:
        mask &= ~void
    if not mask.any():
        raise SceneError(
            str(path), f"is an empty mask: no pixel {wanted} (values: {_listed(_distinct(values))})."
        )
    return mask


def _listed(values: np.ndarray) -> str:
    """Return the first few values as text."""
    shown = ", ".join(str(int(value)) for value in values[:6])
    return shown + (", ..." if len(values) > 6 else "")


def _distinct(values: np.ndarray) -> np.ndarray:
    """Return the sorted distinct values; block by block, so that a huge mask needs little extra memory."""
    blocks = [np.unique(values[top : top + 256]) for top in range(0, len(values), 256)]
    return np.unique(np.concatenate(blocks))


def _shrink_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale a mask down to (height, width) by area; if nothing is half covered, the fullest pixels count."""
    if mask.shape == size:
        return mask
    share = cv2.resize(mask.astype(np.uint8) * 255, size[::-1], interpolation=cv2.INTER_AREA)
    if share.any():
        return share >= min(128, int(share.max()))
    small = np.zeros(size, bool)
    rows, columns = np.nonzero(mask)
    small[rows * size[0] // mask.shape[0], columns * size[1] // mask.shape[1]] = True
    return small


def _size_reason(mask: tuple[int, ...], image: tuple[int, int], image_path: Path) -> str:
    """Say why a mask does not fit its image."""
    reason = (
        f"is {mask[1]} x {mask[0]} pixels, its image {image_path.name} is {image[1]} x {image[0]}; "
        "save both with the same size."
    )
    if mask == image[::-1]:
        reason += " (The image counts as turned by its EXIF orientation; was the mask drawn before turning?)"
    return reason


def _require_eight_bits(picture: Image.Image, path: Path) -> None:
    """Raise ``SceneError`` unless the file holds one picture with 8 bits per channel."""
    if picture.mode not in _PLAIN_MODES or _is_deep(picture, path):
        raise SceneError(
            str(path),
            f"does not have 8 bits per channel (mode {picture.mode}); map the range you need to 0..255 and "
            "save it again, because which range that is differs from camera to camera.",
        )


def _is_deep(picture: Image.Image, path: Path) -> bool:
    """Return whether a PNG or TIFF file declares more than 8 bits per channel; in colour Pillow hides it."""
    if picture.format == "TIFF":
        return int(np.max(picture.getexif().get(_BITS_PER_SAMPLE, 8))) > 8
    with path.open("rb") as file:
        head = file.read(25)
    return head.startswith(_PNG_MAGIC) and len(head) == 25 and head[24] > 8


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open one picture; whatever goes wrong while it is open becomes a ``SceneError`` about this file."""
    try:
        if path.stat().st_size == 0:
            raise SceneError(str(path), "is an empty file (0 bytes); copy it again.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                frames = getattr(picture, "n_frames", 1)
                if frames > 1 and picture.format != "MPO":  # in which phones add a preview to a JPEG
                    raise SceneError(str(path), f"holds {frames} pictures; save the one you mean by itself.")
                yield picture
    except FileNotFoundError:
        raise SceneError(str(path), "does not exist; check the path.") from None
    except IsADirectoryError:
        raise SceneError(str(path), "is a folder; name an image file.") from None
    except UnidentifiedImageError:
        raise SceneError(str(path), "is not an image that can be read; save it as PNG or JPEG.") from None
    except Image.DecompressionBombError:
        raise SceneError(str(path), "has too many pixels to be opened safely; scale it down.") from None
    except (OSError, SyntaxError, EOFError, struct.error, zlib.error) as error:
        raise SceneError(str(path), f"cannot be read, it may be damaged or cut short ({error}).") from None
