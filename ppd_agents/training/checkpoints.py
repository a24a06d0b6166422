"""Checkpoints of a training on disk: a versioned manifest (JSON) and safetensors, never a pickle."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ppd_agents.folders import folder_in_one_rename, remove_folder
from ppd_agents.training.best import CRITERION
from ppd_env.errors import PPDError

FORMAT = "ppd-checkpoint-3"
_MANIFEST, _TENSORS, _PREFIX = "manifest.json", "tensors.safetensors", "checkpoint-"
_NAME = re.compile(rf"{_PREFIX}\d{{6,}}")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Args:
        round: Rounds finished.
        tensors: Named tensors.
        facts: Plain JSON: configuration, counters, generator states, history.
        score: How good the agents were (``CRITERION``), or None where that is not known yet.
    """

    round: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    score: float | None = None


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint; the last ``keep`` and the best one stay, older ones go.

    Args:
        folder: Where the checkpoints of one run lie.
        checkpoint: What to write.
        keep: How many stay.

    Returns:
        The checkpoint's own folder.
    """
    final = folder / f"{_PREFIX}{checkpoint.round:06d}"
    with folder_in_one_rename(final) as aside:
        tensors = {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}
        save_file(tensors, aside / _TENSORS)
        manifest = {
            "format": FORMAT,
            "round": checkpoint.round,
            "criterion": CRITERION,
            "score": checkpoint.score,
            "tensors_sha256": _digest(aside / _TENSORS),
            "facts": checkpoint.facts,
        }
        (aside / _MANIFEST).write_text(json.dumps(sealed(manifest)))
    tidy(folder, keep)
    return final


def tidy(folder: Path, keep: int) -> None:
    """Drop all checkpoints but the last ``keep`` and the best, and what a killed process left half done."""
    for left in list(folder.glob(f".{_PREFIX}*")):
        shutil.rmtree(left)
    found = list_checkpoints(folder)
    for path in found[:-keep]:
        if path != best_checkpoint(folder):
            remove_folder(path)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first; copies under other names are none."""
    return sorted(p for p in folder.glob(f"{_PREFIX}*") if _NAME.fullmatch(p.name) and p.is_dir())


def best_checkpoint(folder: Path) -> Path | None:
    """Return the checkpoint with the highest score, the newest of equals; without any score, the newest.

    Args:
        folder: Where the checkpoints of one run lie.

    Returns:
        Its folder, for ``load_checkpoint``; None where no manifest can be read.
    """
    ranks = _ranks(folder)
    return max(ranks, key=lambda path: ranks[path], default=None)


def is_best(folder: Path, checkpoint: Checkpoint) -> bool:
    """Tell whether a checkpoint is as good as the best that lies in ``folder``, or better."""
    own = _rank(checkpoint.score, checkpoint.round)
    return own >= max(_ranks(folder).values(), default=own)


def _ranks(folder: Path) -> dict[Path, tuple[float, int]]:
    ranks = {}
    for path in list_checkpoints(folder):
        try:
            manifest = _read_manifest(path)
        except PPDError:
            continue  # whoever loads it is told; it must not keep the others from being judged
        ranks[path] = _rank(manifest["score"], manifest["round"])
    return ranks


def _rank(score: float | None, round_: int) -> tuple[float, int]:
    return (float("-inf") if score is None else score, round_)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Args:
        path: Its folder.

    Returns:
        What it holds.

    Raises:
        PPDError: It is incomplete, damaged or of another format.
    """
    manifest = _read_manifest(path)
    try:
        if _digest(path / _TENSORS) != manifest["tensors_sha256"]:
            raise PPDError(f"{path / _TENSORS} is cut short or changed. Use another checkpoint.")
        tensors = load_file(path / _TENSORS)
    except (OSError, SafetensorError) as error:
        raise PPDError(f"{path / _TENSORS} cannot be read ({error}). Use another checkpoint.") from error
    return Checkpoint(manifest["round"], tensors, manifest["facts"], manifest["score"])


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise PPDError(
            f"{path / _MANIFEST} is missing or damaged ({error}). Use another checkpoint."
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise PPDError(f"{path} is no checkpoint of the format {FORMAT!r}. Use another checkpoint.")
    if manifest.get("sha256") != sealed(manifest)["sha256"]:
        raise PPDError(f"{path / _MANIFEST} was changed after it was written. Use another checkpoint.")
    if path.name != f"{_PREFIX}{manifest['round']:06d}":
        raise PPDError(f"{path} is the checkpoint of round {manifest['round']}: give it back its name.")
    return manifest


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest as JSON has it, with the SHA-256 of everything else in it under ``"sha256"``."""
    plain = json.loads(json.dumps({name: part for name, part in manifest.items() if name != "sha256"}))
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    return {**plain, "sha256": digest}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def resume_newest(folder: Path, restore: Callable[[Checkpoint], None], *, skip_damaged: bool = False) -> None:
    """Restore the newest checkpoint of a run, if there is one.

    Args:
        folder: Where the checkpoints of one run lie.
        restore: Takes up a checkpoint; raises PPDError where it belongs to another training.
        skip_damaged: Where the newest cannot be used, restore the newest one that can, and set those after it
            aside: they are renamed to ``damaged-...``, not deleted.

    Raises:
        PPDError: The newest cannot be used and ``skip_damaged`` is False, or none can be used.
    """
    faults: dict[Path, PPDError] = {}
    good = None
    for path in reversed(list_checkpoints(folder)):
        try:
            restore(load_checkpoint(path))
        except PPDError as error:
            faults[path] = error
        else:
            good = path
            break
    if not faults:
        return
    newest, fault = next(iter(faults.items()))
    if good is None:
        reasons: dict[str, str] = {}
        for damaged, why in faults.items():
            reasons.setdefault(str(why), damaged.name)
        told = " ".join(f"{name}: {reason}" for reason, name in reasons.items())
        raise PPDError(
            f"{told} No checkpoint there can be used as things are: mend what is named, or train into "
            "another folder."
        ) from fault
    if not skip_damaged:
        raise PPDError(
            f"{newest.name}: {fault} The newest good one is {good.name}: --skip-damaged "
            "(skip_damaged=True) goes on from there and sets aside what is newer."
        ) from fault
    for path in faults:
        _set_aside(path)


def refuse_foreign(theirs: Mapping[str, Any], ours: Mapping[str, Any], what: str) -> None:
    """Compare what decides a training's result in a checkpoint and here.

    Args:
        theirs: By name, in the checkpoint.
        ours: By name, here.
        what: Names them in the error, such as ``"option"``.

    Raises:
        PPDError: Something differs.
    """
    for name in sorted({*theirs, *ours}):
        if theirs.get(name) != ours.get(name):
            raise PPDError(
                f"The checkpoint belongs to another training: {what} {name} is {theirs.get(name)!r} there "
                f"and {ours.get(name)!r} here. Resume with the same settings."
            )


def _set_aside(path: Path) -> None:
    names = itertools.chain([path.name], (f"{path.name}-{count}" for count in itertools.count(2)))
    free = (path.with_name(f"damaged-{name}") for name in names)
    path.rename(next(target for target in free if not target.exists()))
