"""Finished stages of an evaluation, kept on disk so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import glob
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

RULES = 2
"""Raised with every change of the code after which the same agents play or score otherwise: what was stored
before is computed again."""

_PARTS = ("status", "dice", "iou")


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


class ArrayStore:
    """A folder of finished pieces of work, each a file of arrays.

    Args:
        folder: Where they lie; None keeps nothing.
        key: Fingerprint of everything a piece depends on; one stored under another key is computed again.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self.folder = folder
        self.key = f"{RULES}.{key}"

    def read(self, name: str) -> dict[str, np.ndarray] | None:
        """Return the arrays of the piece ``name``; None where there is none under this key.

        Raises:
            PPDError: A file of that name lies there and cannot be read.
        """
        path = self.path(name)
        if path is None or not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as data:
                if str(data["key"]) != self.key:
                    return None
                return {part: data[part] for part in data.files if part != "key"}
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise damaged(path, error) from None

    def write(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep a piece, written aside and then renamed."""
        path = self.path(name)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"key": np.array(self.key), **arrays}
        aside = path.with_suffix(".tmp")
        with aside.open("wb") as file:
            np.savez_compressed(file, **content)
        aside.replace(path)

    def path(self, name: str) -> Path | None:
        """Return where a piece lies, or would; None where nothing is kept."""
        plain = re.sub(r"[^A-Za-z0-9.=-]+", "_", name) + ".npz"
        return None if self.folder is None else self.folder / plain


def damaged(path: object, error: Exception) -> PPDError:
    """Return the error that says what to do about a file that cannot be read."""
    return PPDError(f"{path}: not a stage of an evaluation ({error}); delete the file and run again.")


class StageStore:
    """A folder of finished stages, and of the pieces of the one under way.

    Args:
        folder: Where they lie; None keeps nothing.
        key: Fingerprint of everything a stage depends on; stages stored under another key are computed again.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self._arrays = ArrayStore(folder, key)

    def get(self, name: str, compute: Callable[[], Stage]) -> Stage:
        """Return the stage ``name``, computed and stored first if there is none under this key."""
        arrays = self._arrays.read(name)
        if arrays is not None:
            try:
                budgets = arrays["budgets"].tolist()
                return Stage(*({b: arrays[f"{part}.{b}"] for b in budgets} for part in _PARTS))
            except KeyError as error:
                raise damaged(self._arrays.path(name), error) from None
        stage = compute()
        arrays = {"budgets": np.array(list(stage.status))}
        for part in _PARTS:
            arrays |= {f"{part}.{budget}": values for budget, values in getattr(stage, part).items()}
        self._arrays.write(name, arrays)
        return stage

    def piece(
        self, name: str, first: int, compute: Callable[[], Mapping[int, np.ndarray]]
    ) -> Mapping[int, np.ndarray]:
        """Return what some scenes of the stage ``name`` came to, computed and stored first if need be.

        Args:
            name: Of the stage.
            first: The first of the scenes.
            compute: Returns budget -> (k, N) int8.
        """
        part = f"{name}.from={first}"
        arrays = self._arrays.read(part)
        if arrays is None:
            arrays = {str(budget): prompts for budget, prompts in compute().items()}
            self._arrays.write(part, arrays)
        return {int(budget): prompts for budget, prompts in arrays.items()}

    def forget_pieces(self, name: str) -> None:
        """Remove the pieces of a stage that is finished."""
        path = self._arrays.path(name)
        if path is not None:
            for piece in path.parent.glob(f"{glob.escape(path.stem)}.from=*.npz"):
                piece.unlink()
