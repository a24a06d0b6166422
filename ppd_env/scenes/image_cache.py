"""What one model says about images: one file per image, wherever the image appears.

A file is named by the hash of the image and lies in a folder of its model, under ``embeddings`` in the cache
folder. It is written aside and renamed, so a reader sees a whole file or none, however many processes write
the same one. What is truncated, damaged or not what its name says is computed again.
"""

from __future__ import annotations

import hashlib
import re
import time
import uuid
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ppd_env.paths import cache_dir

FORMAT = 1
"""Raised by one whenever the meaning of a stored tensor changes."""

_STALE_SECONDS = 24 * 3600
"""Age from which a file that was never renamed belongs to a process that is no more."""


def image_digest(image: np.ndarray) -> str:
    """Return the hash of an image's shape and pixels, 32 hexadecimal digits.

    Args:
        image: (H, W, 3) uint8.
    """
    digest = hashlib.sha256(f"{image.shape} {image.dtype};".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:32]


class ImageCache:
    """The tensors of one model, by image.

    Args:
        kind: ``"segmenter"`` or ``"features"``.
        signature: The model's signature: its architecture, weights and preprocessing.
        grid: g, where the tensors depend on it.
    """

    def __init__(self, kind: str, signature: str, grid: int | None = None) -> None:
        self._key = {"format": str(FORMAT), "kind": kind, "signature": signature, "grid": str(grid or "")}
        root = cache_dir() / "embeddings"
        readable = re.sub(r"[^\w.-]+", "_", signature)[:60]
        self.folder = root / f"{kind}-{readable}-{hashlib.sha256(signature.encode()).hexdigest()[:8]}"
        self._aside = root / "unfinished"
        self._suffix = (f"-g{grid}" if grid else "") + f".v{FORMAT}.safetensors"
        _sweep(self._aside)

    def path(self, image: str) -> Path:
        """Return the file of an image.

        Args:
            image: Its digest.
        """
        return self.folder / f"{image}{self._suffix}"

    def holds(self, image: str) -> bool:
        """Return whether an image's file is there, whole and this model's; its values are not read.

        Args:
            image: Its digest.
        """
        return self._open(image, values=False) is not None

    def read(self, image: str) -> dict[str, Tensor] | None:
        """Return an image's tensors on the CPU, or None where there are none; damaged ones are a warning.

        Args:
            image: Its digest.
        """
        return self._open(image, values=True)

    def write(self, image: str, tensors: Mapping[str, Tensor]) -> int:
        """Store an image's tensors, replacing what is there.

        Args:
            image: Its digest.
            tensors: Named tensors, each with leading axis 1.

        Returns:
            Bytes written.

        Raises:
            OSError: The disk refuses; nothing is left behind.
        """
        held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        data = save(held, {**self._key, "image": image, "crc32": _checksum(held)})
        aside = self._aside / f"{image}.{uuid.uuid4().hex}"
        self._aside.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            aside.write_bytes(data)
            aside.replace(self.path(image))
        finally:
            aside.unlink(missing_ok=True)
        return len(data)

    def _open(self, image: str, *, values: bool) -> dict[str, Tensor] | None:
        """Return an image's tensors (without ``values``, none of them), or None without a usable file."""
        path = self.path(image)
        try:
            with safe_open(path, framework="pt") as file:
                facts = dict(file.metadata() or {})
                checksum = facts.pop("crc32", None)
                if facts != {**self._key, "image": image}:
                    raise ValueError("it describes another image or model")
                tensors = {name: file.get_tensor(name) for name in (file.keys() if values else ())}
            if values and _checksum(tensors) != checksum:
                raise ValueError("its values have changed since they were written")
            return tensors
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError, RuntimeError) as error:
            warnings.warn(f"The cached {path} cannot be used ({error}); it is computed again.", stacklevel=3)
            return None


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return a checksum of the tensors' bytes, in the order of their names."""
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].flatten().view(torch.uint8).numpy().data, total)
    return str(total)


def _sweep(folder: Path) -> None:
    """Remove what processes that were killed left unfinished."""
    try:
        for path in folder.iterdir():
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink(missing_ok=True)
    except OSError:
        pass  # no folder yet, or another process sweeps it; a file more does no harm
