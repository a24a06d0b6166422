"""Algorithms by name: ``module:Class``, with an adapter for the classes of Stable-Baselines3."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import yaml
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from tqdm import tqdm

from ppd_agents.benchmark.protocol import Algorithm, TrainedPolicy
from ppd_env.errors import ConfigError

HYPERPARAMS = Path(__file__).parents[1] / "hyperparams"
ZOO_NAMES = {"MaskablePPO": "ppo_mask", "MaskedDQN": "masked_dqn"}
"""File names of RL Baselines3 Zoo that are not the class's own in small letters."""

OF_THE_ZOO = ("n_timesteps", "normalize", "n_envs", "env_kwargs", "env_wrapper", "policy")
"""Entries that are no arguments of the algorithm."""


def load_algorithm(name: str) -> Algorithm:
    """Return the algorithm that ``module:Class`` names.

    Args:
        name: An ``Algorithm``, a class of one, or a class of Stable-Baselines3's kind, such as
            ``stable_baselines3:DQN``, ``sb3_contrib:MaskablePPO`` or ``ppd_agents:MaskedDQN``.

    Raises:
        ConfigError: It cannot be imported, or has no ``train(env_id, seed, budget)``.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ConfigError(f"Name an algorithm as module:Class, such as stable_baselines3:DQN; got {name!r}.")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"The algorithm {name!r} cannot be imported: {error}.") from error
    if inspect.isclass(found) and issubclass(found, BaseAlgorithm):
        return SB3Algorithm(found)
    try:
        made = found() if inspect.isclass(found) else found
    except TypeError as error:
        raise ConfigError(f"The algorithm {name!r} must be made without arguments: {error}.") from error
    if not isinstance(made, Algorithm):
        raise ConfigError(
            f"The algorithm {name!r} has no train(env_id, seed, budget); see docs/benchmark.md."
        )
    return made


class SB3Algorithm:
    """A class of Stable-Baselines3's kind, with the settings of ``hyperparams/NAME.yml``, else its own.

    MLPs see ``status``, ``steps_left`` and the segmenter's own feedback; ``MaskedDQN`` sees the graph.

    Args:
        kind: The class.
    """

    def __init__(self, kind: type[BaseAlgorithm]) -> None:
        self.kind = kind
        self.settings = hyperparams(kind.__name__)
        self.view: dict[str, Any] = self.settings.get("env_kwargs", {})

    def train(self, env_id: str, seed: int, budget: int) -> TrainedPolicy:
        """Learn for ``budget`` steps; see ``Algorithm``."""
        wrap = partial(wrapped, wrappers=self.settings.get("env_wrapper", []))
        env = make_vec_env(
            env_id,
            n_envs=self.settings.get("n_envs", 1),
            seed=seed,
            env_kwargs=self.view,
            wrapper_class=wrap,
        )
        arguments = {name: value for name, value in self.settings.items() if name not in OF_THE_ZOO}
        policy = self.settings.get("policy", "MultiInputPolicy")
        if "rng" in inspect.signature(self.kind).parameters:
            arguments["rng"] = seed
        model = self.kind(policy, env, seed=seed, device="cpu", **arguments)
        model.learn(budget, callback=_Bar(budget))
        env.close()
        return SB3Policy(model, self.view, wrap)


class _Bar(BaseCallback):
    """Shows how far a training is."""

    def __init__(self, budget: int) -> None:
        super().__init__()
        self._bar = tqdm(total=budget, desc="training", disable=None, leave=False, unit="step")

    def _on_step(self) -> bool:
        self._bar.update(self.num_timesteps - self._bar.n)
        return True

    def _on_training_end(self) -> None:
        self._bar.close()


class SB3Policy:
    """A trained model of Stable-Baselines3's kind, which plays what it finds best.

    Args:
        model: The model.
        view: See ``TrainedPolicy``.
        wrap: See ``TrainedPolicy``.
    """

    def __init__(self, model: BaseAlgorithm, view: Mapping[str, Any], wrap: Any) -> None:
        self._model, self.view, self.wrap = model, view, wrap
        self._masked = "action_masks" in inspect.signature(model.predict).parameters

    def act(self, observation: Any, action_mask: np.ndarray) -> int:
        """Return the best action; a class that knows no masks is shown none."""
        masks: dict[str, Any] = {"action_masks": action_mask} if self._masked else {}
        action, _ = self._model.predict(observation, deterministic=True, **masks)
        return int(action)


def hyperparams(name: str) -> dict[str, Any]:
    """Return the settings that ship for a class of Stable-Baselines3's kind; empty where there are none."""
    path = HYPERPARAMS / f"{ZOO_NAMES.get(name, name.lower())}.yml"
    if not path.is_file():
        return {}
    settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["PPD-v0"]
    return settings


def wrapped(env: gymnasium.Env, wrappers: list[dict[str, dict[str, Any]]]) -> gymnasium.Env:
    """Wrap an environment as ``env_wrapper`` of a settings file says: ``[{"module.Class": arguments}]``."""
    for one in wrappers:
        for name, arguments in one.items():
            module, _, attribute = name.rpartition(".")
            env = getattr(importlib.import_module(module), attribute)(env, **arguments)
    return env
