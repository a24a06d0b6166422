"""Agents to the Hugging Face Hub: a folder with a model card, uploaded by the hub's own library."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from ppd_agents.dqn.agent import Agent, is_agent, write_agent
from ppd_agents.folders import folder_in_one_rename
from ppd_agents.model_card import card_text
from ppd_agents.shipped import HUB, download, open_agent
from ppd_agents.training.presets import ROLES
from ppd_env.errors import PPDError
from ppd_env.game.actions import Role
from ppd_env.pretrained import hub_errors

CARD = "README.md"
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def export_agents(
    name_or_path: str | Path,
    folder: Path,
    *,
    result: Path | None = None,
    licence: str = "apache-2.0",
    title: str | None = None,
    repository: str | None = None,
) -> Path:
    """Write an agent, or the pair of a training, into a folder with a model card.

    ``open_agent``, ``Defender.load`` and ``load_opponent`` take the folder, here or on the hub.

    Args:
        name_or_path: A name that ships, the folder of a training or of one agent, or ``hf://OWNER/NAME``.
        folder: The folder to be: ``attacker`` and ``defender`` or one agent's two files, and the card.
        result: A result file whose scores the card shows; None: ``metrics.json`` of the agents' own run,
            where it lies beside the training.
        licence: Of the weights, by the hub's short name.
        title: Heading of the card; None: what is exported.
        repository: ``OWNER/NAME`` the folder is meant for, named in the card.

    Returns:
        The folder.

    Raises:
        PPDError: There is no such agent, the folder holds something else, the result belongs to other
            agents, or huggingface_hub is missing.
    """
    if repository is not None:
        _checked(repository)
    agents = find_agents(name_or_path)
    if folder.exists() and not _ours(folder):
        raise PPDError(f"{folder} exists and holds no exported agents: choose another folder or remove it.")
    scores = _scores(name_or_path, agents, result)
    shown = title or f"Point Prompt Defender: {' and '.join(agents)}"
    text = card_text(agents, scores, licence=licence, title=shown, place=_place(folder, repository))
    pair = len(agents) > 1
    with folder_in_one_rename(folder) as aside:
        for role, agent in agents.items():
            inner = aside / role if pair else aside
            inner.mkdir(exist_ok=True)
            write_agent(agent, inner)
        (aside / CARD).write_text(text, encoding="utf-8")
    return folder


def find_agents(name_or_path: str | Path) -> dict[Role, Agent]:
    """Return by role the agents that a name or folder holds: both of a training, or the one that lies there.

    Raises:
        PPDError: There is none.
    """
    if str(name_or_path).startswith(HUB):
        name_or_path = download(str(name_or_path))
    folder = Path(name_or_path)
    if is_agent(folder):
        agent = open_agent(folder, "defender")
        return {agent.role: agent}
    there = [role for role in ROLES if not folder.is_dir() or is_agent(folder / role)]
    return {role: open_agent(name_or_path, role) for role in there or ROLES}


def push_to_hub(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload an exported folder by huggingface_hub's own function.

    Args:
        folder: From ``export_agents``.
        repository: ``OWNER/NAME``; made where it does not exist.
        private: A repository that is made is private.

    Returns:
        Its address.

    Raises:
        PPDError: The name is malformed, nobody is logged in, or the hub cannot be reached or refuses.
    """
    _checked(repository)
    hub = hub_package()
    remedy = "log in with `hf auth login` and run the same command again; the folder stays"
    with hub_errors(repository, "uploaded", remedy):
        api = hub.HfApi()
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload agents")
    return str(address)


def hub_package() -> ModuleType:
    """Return huggingface_hub.

    Raises:
        PPDError: It is not installed.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise PPDError(
            "The Hugging Face Hub needs the package huggingface_hub: pip install huggingface_hub (or "
            "'point-prompt-defender[hub]')."
        ) from None
    return cast(ModuleType, huggingface_hub)


def _checked(repository: str) -> None:
    if not _REPOSITORY.fullmatch(repository):
        raise PPDError(f"A repository of the hub is named OWNER/NAME, got {repository!r}.")


def _ours(folder: Path) -> bool:
    inside = is_agent(folder) or any(is_agent(folder / role) for role in ROLES)
    return folder.is_dir() and (not any(folder.iterdir()) or (inside and (folder / CARD).is_file()))


def _place(folder: Path, repository: str | None) -> str:
    return f"{HUB}{repository}" if repository else f"path/to/{folder.resolve().name}"


def _scores(
    name_or_path: str | Path, agents: Mapping[Role, Agent], result: Path | None
) -> Mapping[str, Any] | None:
    """Return the result file that belongs to these agents; None where none is named and none lies there."""
    from ppd_agents.pipeline import agents_fingerprint

    path = result
    if path is None:
        path = Path(name_or_path).parent / "metrics.json"  # RUN/training -> RUN/metrics.json
        if not path.is_file():
            return None
    content = read_result(path)
    pair = [agents[role] for role in ROLES if role in agents]
    measured = content["config"].get("agents")
    if len(pair) == len(ROLES) and measured != agents_fingerprint(*pair):
        if result is None:
            return None
        raise PPDError(
            f"{path} holds the scores of other agents than those of {name_or_path}: name theirs by --result."
        )
    return content


def read_result(path: Path) -> dict[str, Any]:
    """Read a result file.

    Raises:
        PPDError: It cannot be read, or is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(content[key], dict) for key in ("results", "config")):
            raise TypeError("results and config are missing")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise PPDError(
            f"{path}: no result file ({error}); name the metrics.json of a run, or what ppd evaluate --json "
            "wrote."
        ) from None
    return cast(dict[str, Any], content)
