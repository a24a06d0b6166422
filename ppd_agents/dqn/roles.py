"""Whose moves a learner learns, and whose the games are."""

from __future__ import annotations

from typing import Any, cast

import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from ppd_env.config import EnvConfig
from ppd_env.errors import ConfigError
from ppd_env.game.actions import Role, legal_actions


def role_played(env: Any) -> Role:
    """Return the role that moves in an environment, wrapped or not, where it tells as ``PPD-v0`` does.

    Args:
        env: An environment of Gymnasium's or SB3's kind, or None.

    Returns:
        The role; ``"attacker"`` where the environment does not tell.
    """
    try:
        config = env.get_attr("config", 0)[0] if isinstance(env, VecEnv) else env.get_wrapper_attr("config")
    except (AttributeError, NotImplementedError):
        return "attacker"
    return cast(Role, config.role) if isinstance(config, EnvConfig) else "attacker"


def refuse_other_role(status: Tensor, masks: Tensor, role: Role) -> None:
    """Refuse games in which the other side moves.

    Args:
        status: (B, N) int8.
        masks: (B, 2N + 1) bool.
        role: Whose moves are learned.

    Raises:
        ConfigError: A move is legal that can only be the other side's.
    """
    mover = torch.full((len(status),), role == "attacker", device=status.device)
    if bool((masks & ~legal_actions(status.to(torch.int8), mover)).any()):
        other = "defender" if role == "attacker" else "attacker"
        raise ConfigError(
            f"The games are the {other}'s and the Q-network the {role}'s: pass "
            f"network=QNetworkConfig(role={other!r}), or games in which the {role} moves."
        )
