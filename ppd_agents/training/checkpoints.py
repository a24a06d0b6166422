"""Checkpoints of a training: a versioned manifest (JSON) and safetensors, written aside and renamed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ppd_agents.dqn.masked_dqn import MaskedDQN
from ppd_agents.dqn.replay import SceneReplayBuffer
from ppd_env.errors import PPDError

FORMAT = "ppd-checkpoint-1"
_MANIFEST, _TENSORS, _PREFIX = "manifest.json", "tensors.safetensors", "checkpoint-"
_COUNTERS = ("num_timesteps", "_n_calls", "_n_updates", "_episode_num")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Args:
        round: Rounds finished.
        tensors: Named tensors.
        facts: Plain JSON: configuration, counters, generator states, history.
    """

    round: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Write a checkpoint and drop all but the last ``keep``.

    Args:
        folder: Where the checkpoints of one run lie.
        checkpoint: What to write.
        keep: How many stay.

    Returns:
        The checkpoint's own folder.
    """
    final = folder / f"{_PREFIX}{checkpoint.round:06d}"
    aside = folder / f".{final.name}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_file(
        {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}, aside / _TENSORS
    )
    manifest = {
        "format": FORMAT,
        "round": checkpoint.round,
        "tensors_sha256": _digest(aside / _TENSORS),
        "facts": checkpoint.facts,
    }
    (aside / _MANIFEST).write_text(json.dumps(manifest))
    shutil.rmtree(final, ignore_errors=True)
    aside.rename(final)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first."""
    return sorted(p for p in folder.glob(f"{_PREFIX}*") if p.is_dir())


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Args:
        path: Its folder.

    Returns:
        What it holds.

    Raises:
        PPDError: It is incomplete, damaged or of another format.
    """
    remedy = "remove this folder to go on from the checkpoint before it, or start a new run"
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise PPDError(f"{path / _MANIFEST} is missing or damaged; {remedy} ({error}).") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise PPDError(f"{path} is no checkpoint of the format {FORMAT!r}; {remedy}.")
    try:
        digest = _digest(path / _TENSORS)
    except OSError as error:
        raise PPDError(f"{path / _TENSORS} is missing; {remedy}.") from error
    if digest != manifest.get("tensors_sha256"):
        raise PPDError(f"{path / _TENSORS} is cut short or changed; {remedy}.")
    try:
        tensors = load_file(path / _TENSORS)
    except SafetensorError as error:
        raise PPDError(f"{path / _TENSORS} cannot be read; {remedy} ({error}).") from error
    return Checkpoint(int(manifest["round"]), tensors, manifest["facts"])


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def model_state(model: MaskedDQN) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return everything a ``MaskedDQN`` on a ``SceneReplayBuffer`` needs to go on exactly where it is.

    Args:
        model: The learner, between two episodes.

    Returns:
        Its tensors (networks, optimiser, replay) and its plain facts (counters, epsilon, generator).
    """
    assert isinstance(model.replay_buffer, SceneReplayBuffer)
    tensors = {f"online.{name}": t for name, t in model.q_net.state_dict().items()}
    tensors |= {f"target.{name}": t for name, t in model.q_net_target.state_dict().items()}
    for index, values in model.policy.optimizer.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in values.items()}
    stored = model.replay_buffer.store.state_dict()
    tensors |= {f"replay.{name}": torch.from_numpy(np.ascontiguousarray(a)) for name, a in stored.items()}
    facts = {name: getattr(model, name) for name in _COUNTERS}
    facts["rng"] = model.rng.bit_generator.state
    facts["epsilon_done"] = None if model.epsilon is None else model.epsilon.done
    return tensors, facts


def restore_model(model: MaskedDQN, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Put a freshly built learner where ``model_state`` found the other one.

    Raises:
        PPDError: The checkpoint was made with another network or replay buffer.
    """
    assert isinstance(model.replay_buffer, SceneReplayBuffer)
    try:
        model.q_net.load_state_dict(_under("online.", tensors))
        model.q_net_target.load_state_dict(_under("target.", tensors))
    except RuntimeError as error:
        raise PPDError(f"The checkpoint holds another Q-network than this run's ({error}).") from error
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("optimiser.", tensors).items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    optimizer = model.policy.optimizer
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    replay = {name: t.numpy() for name, t in _under("replay.", tensors).items()}
    model.replay_buffer.store.load_state_dict(replay)
    for name in _COUNTERS:
        setattr(model, name, facts[name])
    model.rng.bit_generator.state = facts["rng"]
    if model.epsilon is not None:
        model.epsilon.done = facts["epsilon_done"]
        model.exploration_rate = model.epsilon.value


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def global_random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state of torch's and numpy's global generators.

    The library draws from neither, but a callback or an environment of the user's own may.
    """
    kind, keys, pos, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    facts = {"kind": kind, "pos": int(pos), "has_gauss": int(has_gauss), "cached": float(cached)}
    return {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
    }, facts


def restore_global_random_state(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Undo ``global_random_state``."""
    torch.set_rng_state(tensors["torch"])
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((facts["kind"], keys, facts["pos"], facts["has_gauss"], facts["cached"]))  # noqa: NPY002
