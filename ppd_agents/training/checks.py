"""Refuses impossible training settings, with one sentence for each fault."""

from __future__ import annotations

from dataclasses import fields
from math import isfinite
from typing import TYPE_CHECKING, Any, get_args

from ppd_agents.dqn.losses import Loss
from ppd_env.errors import ConfigError
from ppd_env.game.actions import Role
from ppd_env.prompting.ideal import LAYOUTS

if TYPE_CHECKING:
    from ppd_agents.training.presets import TrainConfig

_KINDS: dict[str, tuple[type, ...]] = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}

_LEAST = {
    "grid": 1,
    "prompts_per_step": 1,
    "rounds": 1,
    "games": 1,
    "branches": 0,
    "n_step": 1,
    "batch_size": 1,
    "gradient_steps": 0,
    "learning_starts": 0,
    "buffer_size": 1,
    "target_update": 1,
    "hidden": 1,
    "layers": 1,
    "members": 1,
    "messages": 0,
    "landmarks": 0,
    "weight_decay": 0,
    "opponent_pool": 0,
    "shaping": 0,
    "rehearsals": 0,
    "final_rehearsals": 0,
    "final_updates": 0,
    "attack_pool": 1,
    "least_gain": 0,
    "seed": 0,
    "checkpoint_every": 1,
    "keep": 1,
    "learning_rate": 0,
    "final_learning_rate": 0,
}
"""Field -> its smallest value."""

_SHARES = (
    "branch_greedy",
    "gamma",
    "random_attack_share",
    "clean_share",
    "noise_share",
    "matching_share",
    "partial_share",
    "dropout",
)

_CHOICES: dict[str, tuple[str, ...]] = {
    "layout": tuple(LAYOUTS),
    "label_mode": ("free", "truth"),
    "wandb": ("off", "offline", "online"),
    "feedback": ("none", *get_args(Role), "both"),
    "reward": ("dice", "graph-statistics"),
}


def check_training(config: TrainConfig) -> None:
    """Check every field, then how they fit together.

    Args:
        config: The training.

    Raises:
        ConfigError: A value is of the wrong kind or out of its range, or two do not fit together.
    """
    _check_kinds(config)
    _check_ranges(config)
    _check_starts(config)
    _check_rehearsals(config)
    Loss(config.loss, config.huber_delta)  # refuses what it does not know


def _check_kinds(config: TrainConfig) -> None:
    for field in fields(config):
        kind, value = str(field.type), getattr(config, field.name)
        if not kind.startswith("tuple"):
            _check_kind(field.name, value, kind)
            continue
        inner = kind.removeprefix("tuple[").removesuffix("]").split(", ")
        if not isinstance(value, tuple) or len(value) != len(inner):
            raise ConfigError(f"{field.name} must be {len(inner)} numbers, got {value!r}.")
        for one, part in zip(value, inner, strict=True):
            _check_kind(field.name, one, part)


def _check_kind(name: str, value: Any, kind: str) -> None:
    wrong = not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "bool")
    if wrong or (isinstance(value, float) and not isfinite(value)):
        raise ConfigError(f"{name} must be a finite {kind}, got {value!r}.")


def _check_ranges(config: TrainConfig) -> None:
    for name, least in _LEAST.items():
        if getattr(config, name) < least:
            raise ConfigError(f"{name} must be at least {least}, got {getattr(config, name)}.")
    for name in _SHARES:
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigError(f"{name} must lie in [0, 1], got {getattr(config, name)}.")
    for name, known in _CHOICES.items():
        if getattr(config, name) not in known:
            raise ConfigError(f"{name} must be one of {', '.join(known)}, got {getattr(config, name)!r}.")
    low, high = config.steps
    if not 1 <= low <= high:
        raise ConfigError(f"steps must be (lo, hi) with 1 <= lo <= hi, got {config.steps}.")
    if not 0 <= config.epsilon[1] <= config.epsilon[0] <= 1:
        raise ConfigError(f"epsilon must fall within [0, 1], got {config.epsilon}.")
    if not 0 < config.tau <= 1 or config.reward_scale <= 0:
        raise ConfigError("tau must lie in (0, 1], and reward_scale must be above 0.")


def _check_starts(config: TrainConfig) -> None:
    if config.mixed_share > 1:
        raise ConfigError("random_attack_share and clean_share must not be above 1 together.")
    if config.noise_share + config.matching_share > 1:
        raise ConfigError("noise_share and matching_share must not be above 1 together.")


def _check_rehearsals(config: TrainConfig) -> None:
    if config.shaping and config.reward != "dice":
        raise ConfigError(
            f"shaping knows the attack, the reward {config.reward!r} must not: set shaping to 0."
        )
    if not config.rehearsals:
        return
    if not config.shaping:
        raise ConfigError("rehearsals teach what shaping is worth: shaping must be above 0 with them.")
    if config.label_mode != "free" or config.prompts_per_step != 1:
        raise ConfigError(
            "rehearsals play one prompt of either sign per step: "
            "set rehearsals to 0 with another label_mode or prompts_per_step."
        )
    if config.final_shaping <= 0:
        raise ConfigError("final_shaping must be above 0 with rehearsals.")
    if config.feedback != "none":
        raise ConfigError("rehearsals are not decoded: no role can have feedback with them.")
