"""The model card of exported agents: what made the weights, scores, licence, how to load them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

from ppd_agents.dqn.agent import Agent
from ppd_agents.report.text import text_tables
from ppd_env.errors import PPDError
from ppd_env.game.actions import Role

LIBRARY = "point-prompt-defender"
_HEADLINES = {
    "defence.learned": "mean Dice after the defence (%)",
    "attack.learned": "mean Dice after the attack (%)",
}


def card_text(
    agents: Mapping[Role, Agent],
    result: Mapping[str, Any] | None,
    *,
    licence: str,
    title: str,
    place: str,
) -> str:
    """Write a model card: YAML front matter as the hub reads it, and Markdown.

    Args:
        agents: By role.
        result: A result file with their scores, or None.
        licence: The hub's short name of the licence.
        title: The heading, one line.
        place: What to hand to ``Defender.load``: a folder, or ``hf://OWNER/NAME``.

    Returns:
        The card.

    Raises:
        PPDError: huggingface_hub is missing, or refuses the front matter.
    """
    data = _front_matter(result, licence, title)
    sections = [f"# {title}", _about(agents), _training(agents), _loading(agents, place), _measured(result)]
    return f"---\n{data}\n---\n\n" + "\n\n".join(sections) + "\n"


def _front_matter(result: Mapping[str, Any] | None, licence: str, title: str) -> str:
    from ppd_agents.hub import hub_package

    hub = hub_package()
    found = [
        hub.EvalResult(
            task_type="image-segmentation",
            dataset_type="ppd-scenes",
            dataset_name=f"{uri}, {budget} attack actions",
            dataset_config=f"{uri} {budget}",  # the hub groups by it
            metric_type="dice",
            metric_name=_HEADLINES[row],
            metric_value=table[row]["mdsc"],
        )
        for uri, budget, row, table in _rows(result)
    ]
    try:
        card = hub.ModelCardData(
            license=licence,
            library_name=LIBRARY,
            pipeline_tag="reinforcement-learning",
            tags=["reinforcement-learning", "image-segmentation", "point-prompts", "segment-anything", "dqn"],
            **({"model_name": title, "eval_results": found} if found else {}),
        )
        return str(card.to_yaml()).strip()
    except (TypeError, ValueError) as error:
        raise PPDError(f"The model card cannot be written: {error}.") from error


def _rows(result: Mapping[str, Any] | None) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    for uri, budgets in (result or {}).get("results", {}).items():
        for budget, table in budgets.items():
            yield from ((uri, budget, row, table) for row in _HEADLINES if row in table)


def _about(agents: Mapping[Role, Agent]) -> str:
    words = {
        "attacker": "The **attacker** adds point prompts that spoil the mask of a promptable segmenter.",
        "defender": "The **defender** removes point prompts that hurt the mask of a promptable segmenter, "
        "and stops when no removal is expected to help. It sees patch features of the image and the prompts, "
        "no mask and no ground truth, and needs no retraining for another segmenter.",
    }
    lines = [words[role] for role in agents]
    for role, agent in agents.items():
        count = sum(parameter.numel() for parameter in agent.network.parameters())
        lines.append(
            f"- {role}: graph Q-network of {count:,} parameters on `{agent.features}` features "
            f"(`{agent.features_signature}`), trained on {agent.grid} x {agent.grid} patches."
        )
    return "\n\n".join(lines[: len(agents)]) + "\n\n" + "\n".join(lines[len(agents) :])


def _training(agents: Mapping[Role, Agent]) -> str:
    """Name the command and seed that made the weights, and every setting that is not the preset's."""
    notes = next(iter(agents.values())).notes
    config = notes.get("config")
    if not isinstance(config, Mapping):
        return "## Training\n\nThe agent does not say how it was trained."
    command = ["ppd train", f"--preset {config.get('preset')}", f"--seed {config.get('seed')}"]
    changed = _changed(config)
    if "scenes" in changed:
        command.append(f"--scenes '{changed.pop('scenes')}'")
    others = ", ".join(f"`{name}={json.dumps(value)}`" for name, value in sorted(changed.items()))
    return "\n".join(
        [
            "## Training",
            "",
            f"Made by `{' '.join(command)}`, seed {config.get('seed')}, {notes.get('rounds')} rounds on "
            f"`{config.get('scenes')}` with the segmenter `{config.get('segmenter')}`.",
            f"Settings that are not the preset's: {others}." if others else "All settings are the preset's.",
            f"Exported with {LIBRARY} {version(LIBRARY)}; `agent.json` holds every setting.",
        ]
    )


def _changed(config: Mapping[str, Any]) -> dict[str, Any]:
    from ppd_agents.training.presets import PRESETS, preset

    if config.get("preset") not in PRESETS:
        return {}
    usual = preset(str(config["preset"])).to_json()
    silent = {"seed", "device", "progress", "wandb", "tensorboard", "keep", "checkpoint_every"}
    return {k: v for k, v in config.items() if k not in silent and usual.get(k) != v}


def _loading(agents: Mapping[Role, Agent], place: str) -> str:
    lines = ["## How to use", "", "```python"]
    if "defender" in agents:
        lines += [
            "from ppd_agents import Defender",
            "",
            f'defender = Defender.load("{place}")',
            "# image (H, W, 3) uint8 RGB, points (n, 2) pixels (x, y), labels (n,) 1 positive, 0 negative",
            "cleaned = defender.refine(image, points, labels)",
        ]
    if "attacker" in agents:
        lines += [
            *([""] if len(agents) > 1 else []),
            "import gymnasium, ppd_env",
            "",
            f'opponent = "ppd_agents.defender:load_opponent?path={place}"',
            'env = gymnasium.make("PPD-v0", role="defender", opponent=opponent)',
        ]
    return "\n".join([*lines, "```", "", "The weights are safetensors and JSON; nothing is unpickled."])


def _measured(result: Mapping[str, Any] | None) -> str:
    if result is None:
        return "## Scores\n\nNone were measured: `ppd evaluate --agents FOLDER --json PATH` measures them."
    config = result["config"]
    return (
        f"## Scores\n\nMeasured by `ppd {result.get('command')}` with seeds {result.get('seeds')} and the "
        f"segmenter `{config.get('segmenter')}`, in percent with 95 % intervals.\n\n"
        f"```text{text_tables(result)}\n```"
    )
