"""Folders that are there whole or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def folder_in_one_rename(path: Path) -> Iterator[Path]:
    """Fill a folder aside, put it on the disk, then rename it; a folder of that name is replaced.

    What a process that was killed left half done beside ``path`` is cleared away first; the folder it had
    moved aside and not replaced yet comes back. One writer at a time.

    Args:
        path: The folder to be.

    Yields:
        An empty folder beside it, to be filled.
    """
    aside, old = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():
        old.rename(path)
    for left in (aside, old):
        shutil.rmtree(left, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    for written in (*aside.rglob("*"), aside):
        _sync(written)
    if path.exists():
        path.rename(old)
    aside.rename(path)
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder so that half of it is never found under its name."""
    old = path.with_name(f".{path.name}.old")
    path.rename(old)
    shutil.rmtree(old)


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk: a rename may otherwise arrive there before its contents."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
