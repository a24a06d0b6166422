"""What is known of a source's scenes: a folder per bank, ``tensors.safetensors`` and ``manifest.json``.

It is small, and spares reading and describing every scene when a bank is opened again; what the models say
about the images lies in the image cache.

A folder's name is the hash of everything that decides its content. It is written aside and then renamed, so a
reader sees a whole bank or none, however many processes build the same one. Whatever cannot be read, or is
not what its name says, is built again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ppd_env.paths import cache_dir

FORMAT = 5
"""Raised by one whenever the meaning of a cached tensor or manifest entry changes."""

TENSORS = "tensors.safetensors"
MANIFEST = "manifest.json"

_TRIES = 20
"""Attempts to read or replace a bank that other processes keep replacing."""


@dataclass(frozen=True)
class CacheEntry:
    """What is kept of one bank.

    Args:
        tensors: Named tensors on the CPU.
        notes: JSON-ready facts beside them (names, groups, indices, digests of the images, problems).
    """

    tensors: Mapping[str, Tensor]
    notes: Mapping[str, Any]


def cache_key(parts: Mapping[str, Any]) -> str:
    """Return the hexadecimal key of everything that decides a bank, the format version included.

    Args:
        parts: JSON-ready facts: source signature, URI, indices, grid, side of the low-resolution square.

    Returns:
        32 hexadecimal digits.
    """
    text = json.dumps({**parts, "format": FORMAT}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def cache_folder(key: str) -> Path:
    """Return the folder of the bank with this key."""
    return cache_dir() / "banks" / key


def read_entry(parts: Mapping[str, Any]) -> CacheEntry | None:
    """Return the cached bank, or None where there is none or it cannot be used (with a warning).

    Args:
        parts: See ``cache_key``.

    Returns:
        The entry, its tensors on the CPU; their shapes are for the caller to check.
    """
    folder = cache_folder(cache_key(parts))
    for _ in range(_TRIES):
        identity = _identity(folder)
        if identity is None:
            return None
        try:
            return _read_files(folder, parts)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            if _identity(folder) == identity:
                warn_unusable(parts, error)
                return None
            # Another process put a new bank in this place while it was being read.
    return None


def _identity(folder: Path) -> tuple[int, int] | None:
    """Return what changes when another folder takes this one's place; None where there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _read_files(folder: Path, parts: Mapping[str, Any]) -> CacheEntry:
    """Read the manifest and the tensors it lists; raise where they are not those of ``parts``."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(manifest, dict) or manifest.get("key") != {**parts, "format": FORMAT}:
        raise ValueError("its manifest describes another bank")
    tensors = load_file(folder / TENSORS)
    if sorted(tensors) != manifest["tensors"]:
        raise ValueError("its tensors are not those the manifest lists")
    return CacheEntry(tensors, manifest["notes"])


def warn_unusable(parts: Mapping[str, Any], error: Exception | str) -> None:
    """Warn that a cached bank cannot be used and will be built again."""
    folder = cache_folder(cache_key(parts))
    warnings.warn(
        f"The cached scene bank {folder} cannot be used ({error}); it is built again.", stacklevel=2
    )


def write_entry(parts: Mapping[str, Any], entry: CacheEntry) -> bool:
    """Store a bank, replacing an unusable one; a disk that refuses is a warning, never an error.

    Args:
        parts: See ``cache_key``.
        entry: The bank.

    Returns:
        Whether the cache now holds the bank.
    """
    folder = cache_folder(cache_key(parts))
    aside: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent))
        _write_files(aside, parts, entry)
        _put_in_place(aside, folder)
        return True
    except (OSError, SafetensorError) as error:
        warnings.warn(
            f"The scene bank could not be cached in {folder.parent} ({error}); the run goes on without. "
            "Free some space, or point PPD_CACHE to another folder.",
            stacklevel=2,
        )
        return False
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _write_files(folder: Path, parts: Mapping[str, Any], entry: CacheEntry) -> None:
    """Write the tensors and the manifest into ``folder``."""
    save_file({name: tensor.contiguous() for name, tensor in entry.tensors.items()}, folder / TENSORS)
    manifest = {
        "key": {**parts, "format": FORMAT},
        "tensors": sorted(entry.tensors),
        "notes": dict(entry.notes),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _put_in_place(aside: Path, folder: Path) -> None:
    """Rename ``aside`` to ``folder``; what lies there already goes first.

    Raises:
        OSError: The rename failed, other than because a second process stored the same bank meanwhile.
    """
    for _ in range(_TRIES):
        _move_away(folder)
        try:
            os.replace(aside, folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _move_away(folder: Path) -> None:
    """Take ``folder`` out of its place in one rename, then delete it; it may be gone already."""
    if not folder.exists():
        return
    old = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        os.replace(folder, old / "old")
    except FileNotFoundError:
        pass
    finally:
        shutil.rmtree(old, ignore_errors=True)
