"""``ppd export``: its options, and what it prints; ``hub`` does the work, imported when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Export:
    """Write trained agents into a folder with a model card, as the Hugging Face Hub keeps them."""

    agent: Annotated[Positional[str], arg(metavar="AGENT")]
    """mini (the agents that ship), the folder of a training or of one agent, or hf://OWNER/NAME."""
    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """The folder to be."""
    result: Annotated[Path | None, arg(metavar="PATH")] = None
    """Result file whose scores the card shows; by default the metrics.json of the agents' own run."""
    licence: str = "apache-2.0"
    """Licence of the weights, by the hub's short name."""
    title: str | None = None
    """Heading of the card."""
    push: Annotated[str | None, arg(metavar="OWNER/NAME")] = None
    """Upload the folder to this repository of the hub as well; needs a login (`hf auth login`)."""
    private: bool = False
    """With --push: a repository that is made is private."""


def run_export(options: Export) -> int:
    """Export, upload where asked, print what was done, and return the exit code."""
    from ppd_agents.hub import export_agents, push_to_hub

    folder = export_agents(
        options.agent,
        options.folder,
        result=options.result,
        licence=options.licence,
        title=options.title,
        repository=options.push,
    )
    print(f"Written to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    if options.push is not None:
        print(f"Uploaded: {push_to_hub(folder, options.push, private=options.private)}")
    return 0
