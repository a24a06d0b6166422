"""Agents that attack and defend point prompts: learning, plug-and-play inference, evaluation and reports."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppd_agents.defender import Defender
    from ppd_agents.dqn.masked_dqn import MaskedDQN
    from ppd_agents.shipped import open_agent
    from ppd_agents.training.adversarial import train_adversarial

__all__ = ["Defender", "MaskedDQN", "open_agent", "train_adversarial"]

_HOMES = {
    "Defender": "ppd_agents.defender",
    "MaskedDQN": "ppd_agents.dqn.masked_dqn",
    "open_agent": "ppd_agents.shipped",
    "train_adversarial": "ppd_agents.training.adversarial",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first asked for: they pull in torch and Stable-Baselines3."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
