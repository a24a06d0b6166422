"""Files that strangers send: measured before they are decoded, and refused in words they can act on."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from ppd_env.errors import PPDError, SceneError
from ppd_env.scenes.reading import MaskRule, read_image, read_pair

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""What may be sent, as Pillow names it; its other readers are never asked about a stranger's file."""

SMALLEST_SIDE = 16
"""Pixels; in a smaller image there is nothing to click on."""

T = TypeVar("T")


class TooLargeError(PPDError):
    """A file has more bytes or pixels than the server takes."""


@dataclass(frozen=True)
class Limits:
    """How much one file may hold.

    Args:
        megabytes: Millions of bytes.
        megapixels: Millions of pixels, known from the file's header before anything is decoded.
    """

    megabytes: float = 20.0
    megapixels: float = 40.0

    @property
    def bytes(self) -> int:
        """Most bytes of one file."""
        return int(self.megabytes * 1e6)

    def too_long(self, name: str) -> TooLargeError:
        """Return the error about a file of too many bytes."""
        return TooLargeError(f"{name}: is larger than {self.megabytes:g} MB; save it smaller or as JPEG.")


def image_of(content: bytes, name: str, limits: Limits) -> np.ndarray:
    """Decode an image.

    Args:
        content: The file.
        name: What its sender calls it.
        limits: Checked before decoding.

    Returns:
        (H, W, 3) uint8 RGB, upright, longer side at most ``reading.MAX_SIDE``.

    Raises:
        TooLargeError: It has too many bytes or pixels.
        PPDError: It is no image that can be used; the message names it as its sender does.
    """
    return _read([(name, content)], limits, lambda paths: read_image(paths[0]))


def mask_of(content: bytes, name: str, picture: bytes | np.ndarray, limits: Limits) -> np.ndarray:
    """Decode the mask of an image; light is foreground where it holds more than two values.

    Args:
        content: The mask's file.
        name: What its sender calls it.
        picture: The image's file, or, of an image that was never a file, its pixels.
        limits: Checked before decoding.

    Returns:
        (H, W) bool, not empty, of the size the image was read in.

    Raises:
        TooLargeError: It has too many bytes or pixels.
        PPDError: It is no mask that can be used, or has another size than the image.
    """
    if isinstance(picture, np.ndarray):
        picture = _as_file(picture)
    files = [("(the picture)", picture), (name, content)]
    return _read(files, limits, lambda paths: _mask(*paths))


def _mask(image: Path, mask: Path) -> np.ndarray:
    """Read a mask as the files of data sets are read, by its two values; else by its brightness."""
    try:
        return read_pair(image, mask, MaskRule(brightness=True)).mask
    except SceneError as error:
        if "so its foreground is not clear" not in error.reason:
            raise
        return read_pair(image, mask, MaskRule(threshold=128, brightness=True)).mask


def _as_file(image: np.ndarray) -> bytes:
    """Return an image as the smallest file of its size, for readers that compare sizes only."""
    stored = io.BytesIO()
    Image.new("1", image.shape[1::-1]).save(stored, "PNG")
    return stored.getvalue()


def _read(files: list[tuple[str, bytes]], limits: Limits, read: Callable[[list[Path]], T]) -> T:
    """Put named files where the readers of data sets can read them, for as long as that takes."""
    with tempfile.TemporaryDirectory(prefix="ppd-upload-") as folder:
        paths = {}
        for number, (name, content) in enumerate(files):
            if len(content) > limits.bytes:
                raise limits.too_long(name)
            path = Path(folder) / f"upload-{number}"
            path.write_bytes(content)
            _measure(path, name, limits)
            paths[path] = name
        try:
            return read(list(paths))
        except SceneError as error:
            reason = error.reason
            for path, name in paths.items():
                reason = reason.replace(str(path), name).replace(path.name, name)
            raise PPDError(f"{paths.get(Path(error.file), 'the file')}: {reason}") from None
        except (ValueError, TypeError, OverflowError, MemoryError, RuntimeError):
            raise PPDError(f"{files[-1][0]}: cannot be read, it may be damaged.") from None


def _measure(path: Path, name: str, limits: Limits) -> None:
    """Refuse by its header what is no image, and what has too many or too few pixels."""
    if not path.stat().st_size:
        raise PPDError(f"{name}: is an empty file (0 bytes).")
    try:
        with Image.open(path, formats=FORMATS) as picture:
            width, height = picture.size
    except Image.DecompressionBombError:
        raise TooLargeError(f"{name}: has too many pixels; at most {limits.megapixels:g} million.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, struct.error):
        raise PPDError(f"{name}: is not an image that can be read; save it as PNG or JPEG.") from None
    if width * height > limits.megapixels * 1e6:
        raise TooLargeError(
            f"{name}: is {width} x {height} pixels, more than {limits.megapixels:g} million; scale it down."
        )
    if min(width, height) < SMALLEST_SIDE:
        raise PPDError(
            f"{name}: is {width} x {height} pixels; an image has at least {SMALLEST_SIDE} on each side."
        )
