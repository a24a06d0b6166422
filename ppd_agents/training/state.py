"""The parts of a training that change, each of which tells its state and takes one up."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ppd_agents.dqn.attacks import AttackMemory
from ppd_agents.dqn.masked_dqn import MaskedDQN
from ppd_agents.dqn.replay import SceneReplayBuffer
from ppd_env.errors import PPDError
from ppd_env.game_batch import GameBatch

State = tuple[dict[str, Tensor], dict[str, Any]]
"""Named tensors, and facts in plain JSON."""

_COUNTERS = ("num_timesteps", "_n_calls", "_n_updates", "_episode_num")


class Part(Protocol):
    """Anything that changes in training and must be found again after an interruption."""

    def state(self) -> State:
        """Return everything this part needs to go on exactly where it is."""
        ...

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Take up what ``state`` of another process returned."""
        ...


def gather(parts: Mapping[str, Part]) -> State:
    """Return the state of all parts.

    Args:
        parts: By name; names hold no ``/``.

    Returns:
        Tensors named ``PART/NAME``, and each part's facts under its name.
    """
    tensors: dict[str, Tensor] = {}
    facts: dict[str, Any] = {}
    for name, part in parts.items():
        own, facts[name] = part.state()
        tensors |= {f"{name}/{key}": tensor for key, tensor in own.items()}
    return tensors, facts


def scatter(parts: Mapping[str, Part], tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Undo ``gather``: give every part its state back.

    Raises:
        PPDError: The state has other parts than this training.
    """
    if set(parts) != set(facts):
        differing = ", ".join(sorted(set(parts) ^ set(facts)))
        raise PPDError(f"The checkpoint has other parts than this training ({differing}).")
    for name, part in parts.items():
        part.restore(_under(f"{name}/", tensors), facts[name])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


class LearnerState:
    """Both networks, optimiser, replay, counters, epsilon and generator of a ``MaskedDQN``.

    Args:
        model: The learner, between two episodes, on a ``SceneReplayBuffer``.
    """

    def __init__(self, model: MaskedDQN) -> None:
        assert isinstance(model.replay_buffer, SceneReplayBuffer)
        self._model, self._store = model, model.replay_buffer.store

    def state(self) -> State:
        """Return tensors (networks, optimiser, replay) and facts (counters, epsilon, generator)."""
        model = self._model
        tensors = {f"online.{name}": t for name, t in model.q_net.state_dict().items()}
        tensors |= {f"target.{name}": t for name, t in model.q_net_target.state_dict().items()}
        for index, values in model.policy.optimizer.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(v) for name, v in values.items()}
        stored = self._store.state_dict()
        tensors |= {f"replay.{n}": torch.from_numpy(np.ascontiguousarray(a)) for n, a in stored.items()}
        facts = {name: getattr(model, name) for name in _COUNTERS}
        facts["rng"] = model.rng.bit_generator.state
        facts["epsilon_done"] = None if model.epsilon is None else model.epsilon.done
        return tensors, facts

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Put a freshly built learner where the other one was.

        Raises:
            PPDError: The other one had another network or replay buffer.
        """
        model = self._model
        try:
            model.q_net.load_state_dict(_under("online.", tensors))
            model.q_net_target.load_state_dict(_under("target.", tensors))
        except RuntimeError as error:
            raise PPDError(f"The checkpoint holds another Q-network than this run's ({error}).") from error
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimiser.", tensors).items():
            index, _, key = name.partition(".")
            moments.setdefault(int(index), {})[key] = value
        optimizer = model.policy.optimizer
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self._store.load_state_dict({name: t.numpy() for name, t in _under("replay.", tensors).items()})
        for name in _COUNTERS:
            setattr(model, name, facts[name])
        model.rng.bit_generator.state = facts["rng"]
        if model.epsilon is not None:
            model.epsilon.done = facts["epsilon_done"]
            model.exploration_rate = model.epsilon.value


class GamesState:
    """A batch of games: where each stands.

    Args:
        games: The games.
    """

    def __init__(self, games: GameBatch) -> None:
        self._games = games

    def state(self) -> State:
        """Return every tensor that changes in play; no facts."""
        return dict(self._games.state_dict()), {}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Put as many games on the same scenes where the others stood."""
        self._games.load_state_dict(tensors)


class MemoryState:
    """Remembered attacks.

    Args:
        memory: The memory.
    """

    def __init__(self, memory: AttackMemory) -> None:
        self._memory = memory

    def state(self) -> State:
        """Return what is remembered; no facts."""
        return {
            n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in self._memory.state_dict().items()
        }, {}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Remember what the other one did.

        Raises:
            PPDError: The other one was of another kind.
        """
        self._memory.load_state_dict({name: t.numpy() for name, t in tensors.items()})


class GeneratorState:
    """A numpy generator.

    Args:
        rng: The generator.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def state(self) -> State:
        """Return no tensors, and the generator's own facts."""
        return {}, dict(self._rng.bit_generator.state)

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Make the generator go on as the other one would have."""
        self._rng.bit_generator.state = facts


class GlobalGenerators:
    """The generators of torch, numpy and Python that belong to the whole process.

    The library draws from none of them, but a callback or a part of the user's own may.
    """

    def state(self) -> State:
        """Return torch's and numpy's long states as tensors, the rest as facts."""
        kind, keys, pos, has_gauss, cached = np.random.get_state()  # noqa: NPY002
        facts = {
            "numpy": [str(kind), int(pos), int(has_gauss), float(cached)],
            "python": random.getstate(),
        }
        found = {
            "torch": torch.get_rng_state(),
            "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        }
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            found |= {f"cuda{number}": each for number, each in enumerate(torch.cuda.get_rng_state_all())}
        return found, facts

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Make all of them go on as they would have; those of GPUs that are not here are left out."""
        torch.set_rng_state(tensors["torch"])
        for number in range(torch.cuda.device_count()):
            if f"cuda{number}" in tensors:
                torch.cuda.set_rng_state(tensors[f"cuda{number}"], number)
        kind, *rest = facts["numpy"]
        np.random.set_state((kind, tensors["numpy"].numpy().astype(np.uint32), *rest))  # noqa: NPY002
        version, words, gauss = facts["python"]
        random.setstate((version, tuple(words), gauss))
