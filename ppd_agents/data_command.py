"""``ppd data``: its options, and what it prints; ``inspection`` does the work, imported when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from ppd_env.uris import parse_uri


@dataclass(frozen=True)
class Data:
    """Look through sets of scenes: what was found, what is broken or missing; which are the references."""

    action: Positional[Literal["check", "references"]]
    """`check` reads every image and mask; `references` names the one-shot references of a set."""
    uri: Annotated[Positional[str], arg(metavar="URI")]
    """URI of scenes, such as voc:///data?split=val; for `check` also a folder, whose layout is recognised."""
    count: int = 5
    """References per class."""
    seed: int = 0
    """Seed of the references."""
    json: Annotated[Path | None, arg(metavar="PATH")] = None
    """Write what was found here."""


def run_data(options: Data) -> int:
    """Look, print what was found, and return the exit code: 1 where something is broken or missing."""
    from ppd_agents.inspection import check_path, check_scenes, list_references
    from ppd_env.whole_files import write_json

    result: dict[str, Any]
    if options.action == "references":
        chosen = list_references(options.uri, options.count, options.seed)
        text, result, whole = chosen.text(), chosen.to_json(), True
    elif "://" in options.uri or parse_uri(options.uri).names_callable:
        found = check_scenes(options.uri, progress=True)
        text, result, whole = found.text(), found.to_json(), found.whole
    else:
        checks = check_path(Path(options.uri), progress=True)
        text, whole = "\n\n".join(check.text() for check in checks), all(check.whole for check in checks)
        result = {"path": options.uri, "sets": [check.to_json() for check in checks]}
    print(text)
    if options.json is not None:
        write_json(options.json, result)
    return 0 if whole else 1
