"""Published lists of references, one JSON file per set beside this module."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class PublishedList:
    """The list of one set.

    Args:
        title: What the set is called; several folders of images may go by the set name ``"folder"``.
        candidates: Class -> names of scenes in the order in which they become references. There are more of
            them than references are needed, because some may be missing or prove unusable.
        sha256: Name -> SHA-256 of the image's file. Empty where the names say which images they are;
            where they do not, a set is recognised by its files.
    """

    title: str
    candidates: Mapping[str, Sequence[str]]
    sha256: Mapping[str, str]

    def holds(self, category: str, name: str, sha256: str) -> bool:
        """Tell whether a scene stands in the list, with the very image that was listed.

        Args:
            category: Its class; "" in a set without classes.
            name: Its name.
            sha256: That of its image's file; "" where it has none.
        """
        listed = name in self.candidates.get(category, ())
        return listed and (not self.sha256 or self.sha256[name] == sha256)


def published_lists(name: str, version: int, seed: int) -> list[PublishedList]:
    """Return the lists that were published under the name of a set.

    Args:
        name: Name of the set, such as ``"photos"`` or ``"folder"``.
        version: Version of the rule.
        seed: The seed.

    Returns:
        The lists: at most one where the name is that of one set, any number of ``"folder"``.
    """
    found = []
    for path in sorted(files("ppd_env.scenes.references").iterdir(), key=lambda one: one.name):
        if not (path.name.startswith(f"{name}-") and path.name.endswith(f"-v{version}-seed{seed}.json")):
            continue
        told = json.loads(path.read_text(encoding="utf-8"))
        found.append(PublishedList(told["title"], told["candidates"], told.get("sha256", {})))
    return found
