"""Trained agents by name or folder; those that ship with the package have names."""

from __future__ import annotations

from pathlib import Path

import torch

from ppd_agents.dqn.agent import Agent, is_agent, load_agent
from ppd_env.errors import PPDError
from ppd_env.game.actions import Role

WEIGHTS = Path(__file__).parent / "weights"
"""Where the agents lie that ship with the package: ``NAME/attacker`` and ``NAME/defender``."""


def shipped_names() -> list[str]:
    """Return the names under which an attacker and a defender ship with the package, sorted."""
    return sorted(path.name for path in WEIGHTS.glob("*/"))


def open_agent(name_or_path: str | Path, role: Role, device: torch.device | str = "cpu") -> Agent:
    """Load a trained agent.

    Args:
        name_or_path: A name the package ships (``"mini"``), the folder of a training, which holds
            ``attacker`` and ``defender``, or the folder of one agent.
        role: Which of the two; the folder of one agent is loaded whatever its role.
        device: A torch device.

    Returns:
        The agent, in evaluation mode.

    Raises:
        PPDError: There is no such agent, or its files are damaged.
    """
    folder = Path(name_or_path)
    if str(name_or_path) in shipped_names() and not (is_agent(folder) or is_agent(folder / role)):
        folder = WEIGHTS / str(name_or_path)  # a folder of that name without agents does not hide them
    elif not folder.is_dir():
        raise PPDError(
            f"There is no {role} {str(name_or_path)!r}: it is neither a folder nor a name that ships "
            f"with the package ({', '.join(shipped_names()) or 'none do'})."
        )
    return load_agent(folder / role if is_agent(folder / role) else folder, device)
