"""One process at a time in a run's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ppd_env.errors import PPDError


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the system lets it go when the process ends, however it ends.

    Args:
        folder: The folder; made where it does not exist.

    Raises:
        PPDError: Another process holds it, or it cannot be written to.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise PPDError(
            f"Another process is at work in {folder}: wait for it, "
            "or give this one a folder of its own (--name or --runs)."
        ) from None
    except OSError as error:
        raise PPDError(f"{folder} cannot be written to ({error}): choose another folder.") from error
    try:
        yield
    finally:
        lock.release()
