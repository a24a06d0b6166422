"""The sets of scenes of a table: which there are, their references and targets, and parts of them."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ppd_agents.evaluation.stages import fingerprint
from ppd_env.errors import ConfigError, SceneError
from ppd_env.scenes.datasets.recognise import LAYOUTS, recognise
from ppd_env.scenes.references import Reference, references, targets
from ppd_env.scenes.references.choosing import listing, set_name
from ppd_env.scenes.scene import HeldScenes, RawScene
from ppd_env.scenes.sources import open_source
from ppd_env.scenes.subsets import drawn
from ppd_env.uris import parse_uri

PART = 64
"""Targets that are played together, and kept together once they are."""

DEEPEST = 3
"""How many folders deep sets are looked for."""


@dataclass(frozen=True, eq=False)
class Part:
    """Some targets of a set, read, and what could not be read of them.

    Args:
        indices: Places in the source.
        scenes: The scenes at these places.
        problems: Of the scenes left out, each a sentence that names the file.
    """

    indices: tuple[int, ...]
    scenes: HeldScenes
    problems: tuple[str, ...]


class TableSet:
    """One set of scenes: its references, and the targets that all of them are measured on.

    Args:
        name: What it is called in the result.
        uri: URI of its scenes.
        count: References per class.
        seed: Chooses them, and the targets where not all are taken.
        most: Targets at most; None takes all.

    Raises:
        PPDError: The set cannot be opened, or has too few images.
    """

    def __init__(self, name: str, uri: str, count: int, seed: int, most: int | None = None) -> None:
        self.name, self.uri = name, uri
        self.source = open_source(uri)
        self.references = references(uri, count, seed)
        wanted = set(targets(uri, self.references))
        self.targets = [scene for scene in listing(self.source) if scene.index in wanted]
        if most is not None:
            chosen = set(drawn((scene.name for scene in self.targets), most, set_name(uri), seed))
            self.targets = [scene for scene in self.targets if scene.name in chosen]
        if not self.targets:
            raise ConfigError(
                f"{uri!r} has no image left beside its references: ask for fewer of them (--references)."
            )
        self.groups = {scene.index: scene.group for scene in self.targets}
        self._classes = {scene.index: scene.category for scene in self.targets}
        self._chosen: dict[str, list[Reference]] = defaultdict(list)
        for reference in self.references:
            self._chosen[reference.category].append(reference)

    @property
    def repetitions(self) -> int:
        """Number of times everything is measured, each time with another reference per class."""
        return max(len(chosen) for chosen in self._chosen.values())

    @property
    def parts(self) -> int:
        """Number of parts."""
        return -(-len(self.targets) // PART)

    def reference(self, index: int, repetition: int) -> int:
        """Return the place of the reference that a target gets.

        A class with fewer references than there are repetitions starts again from its first.

        Args:
            index: The target's place.
            repetition: From 0.
        """
        chosen = self._chosen[self._classes[index]]
        return chosen[repetition % len(chosen)].index

    def read(self, number: int) -> Part:
        """Read a part; a scene that cannot be used is left out, with its reason."""
        found: dict[int, RawScene] = {}
        problems = []
        for scene in self.targets[number * PART : (number + 1) * PART]:
            try:
                found[scene.index] = self.source[scene.index]
            except SceneError as problem:
                problems.append(str(problem))
        return Part(tuple(found), self.held(tuple(found), tuple(found.values())), tuple(problems))

    def held(self, indices: Sequence[int], scenes: Sequence[RawScene]) -> HeldScenes:
        """Return scenes of this set that were read, with a signature that is theirs alone."""
        return HeldScenes(self.uri, scenes, fingerprint([self.source.signature, self.uri, list(indices)]))

    def notes(self) -> dict[str, object]:
        """Return what identifies the scenes, the targets and the references of every class."""
        return {
            "signature": self.source.signature,
            "targets": [scene.index for scene in self.targets],
            "references": {name: [one.name for one in chosen] for name, chosen in self._chosen.items()},
        }


def find_sets(scenes: Sequence[str], data: Path | None) -> dict[str, str]:
    """List sets of scenes: URIs as they are, and every set of a known layout below a folder.

    Args:
        scenes: URIs.
        data: The folder; None for none.

    Returns:
        Name -> URI. The names of the folder's sets are their paths in it, with the URI's keys, and so depend
        on no machine.

    Raises:
        PPDError: The folder is none, or holds nothing that is known.
    """
    found = {uri: uri for uri in scenes}
    if data is None:
        return found
    below = _below(data, DEEPEST)
    if not below:
        known = "; ".join(LAYOUTS)
        raise ConfigError(f"{data} and its folders hold no known layout (docs/datasets.md). Known: {known}.")
    places = {uri: _place(uri, data) for uri in below}
    count = Counter(places.values())
    for uri, place in places.items():
        found[place if count[place] == 1 else f"{parse_uri(uri).scheme}:{place}"] = uri
    return found


def _below(folder: Path, deep: int) -> list[str]:
    """Return the URIs of a folder, or else of the folders in it."""
    found = recognise(folder)
    if found or not deep:
        return found
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [uri for path in inside for uri in _below(path, deep - 1)]


def _place(uri: str, data: Path) -> str:
    parsed = parse_uri(uri)
    path = Path(parsed.path)
    place = path.name if path == data.absolute() else os.path.relpath(path, data.absolute())
    keys = "&".join(f"{key}={value}" for key, value in parsed.query.items())
    return f"{place}?{keys}" if keys else place
