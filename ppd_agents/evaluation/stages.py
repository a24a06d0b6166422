"""Finished stages of an evaluation, kept on disk so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ppd_env.errors import PPDError

ANY_BUDGET = 0
"""Key of a stage that does not depend on the budget."""


@dataclass(frozen=True)
class Stage:
    """One row of a table on S scenes under one seed.

    Args:
        status: Budget (or ``ANY_BUDGET``) -> (S, N) int8, the prompts.
        dice: Budget -> (S,) float64, percent at native size.
        iou: Budget -> (S,) float64, percent at native size.
    """

    status: Mapping[int, np.ndarray]
    dice: Mapping[int, np.ndarray]
    iou: Mapping[int, np.ndarray]

    def at(self, budget: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (status, dice, iou) for ``budget``."""
        key = budget if budget in self.status else ANY_BUDGET
        return self.status[key], self.dice[key], self.iou[key]


def fingerprint(settings: Any) -> str:
    """Return 16 hex digits of ``settings`` (anything JSON can write)."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


class StageStore:
    """A folder of finished stages.

    Args:
        folder: Where they lie; None keeps nothing.
        key: Fingerprint of everything a stage depends on; stages stored under another key are computed again.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self.folder = folder
        self.key = key

    def get(self, name: str, compute: Callable[[], Stage]) -> Stage:
        """Return the stage ``name``, computed and stored first if there is none under this key."""
        if self.folder is None:
            return compute()
        path = self.folder / (re.sub(r"[^A-Za-z0-9.=-]+", "_", name) + ".npz")
        stored = self._read(path)
        if stored is None:
            stored = compute()
            self._write(path, stored)
        return stored

    def _read(self, path: Path) -> Stage | None:
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as data:
                if str(data["key"]) != self.key:
                    return None
                budgets = data["budgets"].tolist()
                parts = [{b: data[f"{part}.{b}"] for b in budgets} for part in ("status", "dice", "iou")]
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise PPDError(
                f"{path}: not a stage of an evaluation ({error}); delete the file and run again."
            ) from None
        return Stage(*parts)

    def _write(self, path: Path, stage: Stage) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = {"key": np.array(self.key), "budgets": np.array(list(stage.status))}
        for part in ("status", "dice", "iou"):
            arrays |= {f"{part}.{budget}": values for budget, values in getattr(stage, part).items()}
        aside = path.with_suffix(".tmp")
        with aside.open("wb") as file:
            np.savez_compressed(file, **arrays)
        aside.replace(path)
