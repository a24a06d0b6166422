"""Where files of ours live on a user's machine."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder of caches, ``$PPD_CACHE`` or else ``~/.cache/ppd``; it may not exist yet."""
    chosen = os.environ.get("PPD_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "ppd"
