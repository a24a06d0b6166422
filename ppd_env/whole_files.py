"""Files that are there whole or not at all, and the versions that results are written down with."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def write_in_one_rename(path: Path, content: bytes) -> None:
    """Write a file aside, then rename it; folders that are missing are made, a file of that name replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    aside.write_bytes(content)
    aside.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON, aside first and then renamed."""
    write_in_one_rename(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of Python and of each package that is installed."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
