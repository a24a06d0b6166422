"""Trained agents by name or folder; those that ship with the package have names."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from ppd_agents.dqn.agent import Agent, is_agent, load_agent
from ppd_env.errors import ConfigError, PPDError
from ppd_env.features.registry import LOADERS as FEATURES
from ppd_env.game.actions import Role
from ppd_env.pretrained import hub_errors
from ppd_env.segmenters.registry import LOADERS as SEGMENTERS

WEIGHTS = Path(__file__).parent / "weights"
"""Where the agents lie that ship with the package: ``NAME/attacker`` and ``NAME/defender``."""


HUB = "hf://"
"""How addresses of agents on the Hugging Face Hub begin: ``hf://OWNER/NAME``, or ``...@REVISION``."""

_ADDRESS = re.compile(r"hf://(?P<name>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")


def download(address: str) -> Path:
    """Return the local copy of agents on the hub, downloading what is missing; only JSON and safetensors.

    Args:
        address: ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION``.

    Returns:
        The folder.

    Raises:
        ConfigError: The address is malformed, huggingface_hub is missing, or the hub cannot be reached or
            refuses.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ConfigError(
            f"Agents on the hub are named hf://OWNER/NAME or hf://OWNER/NAME@REVISION, got {address!r}."
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ConfigError(
            f"{address} needs the package huggingface_hub: pip install huggingface_hub."
        ) from None
    name = found["name"]
    remedy = f"with a network, run `hf download {name} --local-dir FOLDER`, then name that folder"
    with hub_errors(name, "downloaded", remedy):
        patterns = ["*agent.json", "*agent.safetensors"]
        return Path(snapshot_download(name, revision=found["revision"], allow_patterns=patterns))


def shipped_names() -> list[str]:
    """Return the names under which an attacker and a defender ship with the package, sorted."""
    return sorted(path.name for path in WEIGHTS.glob("*/"))


def open_agent(name_or_path: str | Path, role: Role, device: torch.device | str = "cpu") -> Agent:
    """Load a trained agent.

    Args:
        name_or_path: A name the package ships (``"mini"``), the folder of a training, which holds
            ``attacker`` and ``defender``, the folder of one agent, or ``hf://OWNER/NAME`` with either.
        role: Which of the two; the folder of one agent is loaded whatever its role.
        device: A torch device.

    Returns:
        The agent, in evaluation mode.

    Raises:
        PPDError: There is no such agent, its files are damaged, or it comes from the hub and its features
            name code (``module:callable``).
    """
    if not isinstance(name_or_path, str | Path) or not str(name_or_path):
        raise PPDError(f"Agents are named by a name that ships or by a folder, got {name_or_path!r}.")
    distant = str(name_or_path).startswith(HUB)
    folder = download(str(name_or_path)) if distant else _local(name_or_path, role)
    agent = load_agent(folder / role if is_agent(folder / role) else folder, device)
    if distant and _names_code(agent.features):
        raise PPDError(
            f"{name_or_path}: its features {agent.features!r} name code, which is not run for agents from "
            f"the hub: look at that code first, then load them from their folder, {folder}."
        )
    return agent


def _names_code(features: str) -> bool:
    """Tell whether the features of a URI are made, or rest on a segmenter that is, by ``module:callable``."""
    scheme, _, rest = features.partition(":")
    return rest.partition(":")[0] not in SEGMENTERS if scheme == "segmenter" else scheme not in FEATURES


def _local(name_or_path: str | Path, role: Role) -> Path:
    """Return the folder of agents that lie here or ship."""
    folder = Path(name_or_path).expanduser()
    if str(name_or_path) in shipped_names() and not (is_agent(folder) or is_agent(folder / role)):
        return WEIGHTS / str(name_or_path)  # a folder of that name without agents does not hide them
    if not folder.is_dir():
        raise PPDError(
            f"There is no {role} {str(name_or_path)!r}: it is neither a folder nor a name that ships "
            f"with the package ({', '.join(shipped_names()) or 'none do'})."
        )
    return folder
