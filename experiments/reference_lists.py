"""Write the published lists of one-shot references: ``python -m experiments.reference_lists --data FOLDER``.

A list is written for every ``NAME/images`` with ``NAME/masks`` below the folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ppd_env.scenes.references import VERSION, references
from ppd_env.scenes.references.choosing import set_name
from ppd_env.scenes.sources import open_source
from ppd_env.whole_files import write_json

LISTS = Path(__file__).parents[1] / "ppd_env" / "scenes" / "references"
COUNT = 10
"""References per class that a list reaches to: twice as many as tables take."""


def reference_list(uri: str, title: str, seed: int = 0, count: int = COUNT) -> dict[str, Any]:
    """Return the list of a set in files.

    Args:
        uri: The scenes.
        title: What the set is called.
        seed: The seed.
        count: References per class that it reaches to, where a class has as many.

    Returns:
        Class -> the names of references 0, 1, 2, ..., and the SHA-256 of their images' files.

    Raises:
        PPDError: The set cannot be opened, or can have no references.
    """
    chosen = references(uri, count, seed)
    candidates: dict[str, list[str]] = {}
    for one in sorted(chosen, key=lambda one: (one.category, one.rank)):
        candidates.setdefault(one.category, []).append(one.name)
    return {
        "set": set_name(uri),
        "title": title,
        "version": VERSION,
        "seed": seed,
        "names_from": f"{len(open_source(uri))} scenes of images and masks in a folder",
        "candidates": candidates,
        "sha256": {one.name: one.sha256 for one in chosen},
    }


def main() -> None:
    """Write the lists of all folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the sets")
    parser.add_argument("--out", type=Path, default=LISTS, help="where the lists go")
    options = parser.parse_args()
    for folder in sorted(path.parent for path in options.data.glob("*/images")):
        told = reference_list(f"folder://{folder}", folder.name)
        path = options.out / f"{told['set']}-{folder.name}-v{told['version']}-seed{told['seed']}.json"
        write_json(path, told)
        print(f"{path.name}: {sum(map(len, told['candidates'].values()))} references")


if __name__ == "__main__":
    main()
