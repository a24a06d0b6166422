"""What ``ppd data`` tells about sets of scenes: ``check`` and ``references``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ppd_env.errors import PPDError, SceneError
from ppd_env.scenes.datasets.recognise import LAYOUTS, recognise
from ppd_env.scenes.files import FileSource
from ppd_env.scenes.references import VERSION, Reference, references, targets
from ppd_env.scenes.references.choosing import set_name
from ppd_env.scenes.scene import SceneSource, scene_class
from ppd_env.scenes.sources import open_source

_SHOWN = 30
"""Lines of one kind that are printed; the JSON file has all."""


@dataclass(frozen=True)
class SceneCheck:
    """What was found in one set.

    Args:
        uri: The scenes.
        signature: Their signature; empty where the set could not be opened.
        usable: Number of scenes that can be used.
        groups: Number of groups among them.
        classes: Number of classes among them; 0 where they have none.
        sides: Least and greatest longer side in pixels; None where nothing can be used.
        foreground: Least, median and greatest share of foreground; None where nothing can be used.
        problems: Scenes that cannot be used, each as one sentence that names the file.
        missing: What was published and is not here, as sentences.
        published: Title, number of images, where to get it and licence of a published set; None for others.
    """

    uri: str
    signature: str = ""
    usable: int = 0
    groups: int = 0
    classes: int = 0
    sides: tuple[int, int] | None = None
    foreground: tuple[float, float, float] | None = None
    problems: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    published: dict[str, Any] | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing is broken and nothing missing."""
        return not self.problems and not self.missing

    def text(self) -> str:
        """Return lines for a terminal."""
        classes = f", {self.classes} classes" if self.classes else ""
        lines = [
            f"{self.uri}: {self.usable} usable scenes in {self.groups} groups, {len(self.problems)} broken, "
            f"{len(self.missing)} missing{classes}."
        ]
        if self.sides is not None and self.foreground is not None:
            low, middle, high = (f"{100 * share:.1f}" for share in self.foreground)
            lines.append(f"Longer side {self.sides[0]} to {self.sides[1]} pixels.")
            lines.append(f"Foreground {low} to {high} % of the image, median {middle} %.")
        lines += _shown("Broken:", self.problems) + _shown("Missing:", self.missing)
        if self.published is not None:
            lines.append("{title}: {where} (licence: {licence})".format(**self.published))
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }


def check_scenes(uri: str, progress: bool = False) -> SceneCheck:
    """Read every scene of a URI; broken ones are listed, never raised.

    Args:
        uri: The scenes.
        progress: Show a progress bar where it takes longer than 2 seconds.

    Returns:
        What was found.

    Raises:
        PPDError: The URI itself is wrong, or its folder is missing.
    """
    source = open_source(uri)
    groups, classes, sides, shares, problems = set(), set(), [], [], []
    with tqdm(
        _facts_of_all(source), total=len(source), desc="reading", unit="scene", delay=2, disable=not progress
    ) as bar:
        for facts in bar:
            if isinstance(facts, str):
                problems.append(facts)
                continue
            groups.add(facts.group)
            classes.add(facts.category)
            sides.append(facts.side)
            shares.append(facts.share)
    return SceneCheck(
        uri=uri,
        signature=source.signature,
        usable=len(sides),
        groups=len(groups),
        classes=len(classes - {""}),
        sides=(min(sides), max(sides)) if sides else None,
        foreground=(min(shares), float(np.median(shares)), max(shares)) if shares else None,
        problems=tuple(problems),
        missing=tuple(_missing(source)),
        published=_published(source),
    )


def check_path(path: Path, progress: bool = False) -> list[SceneCheck]:
    """Read everything of a known layout at a path.

    Args:
        path: A folder.
        progress: Show progress bars.

    Returns:
        One check per set that was recognised; one that cannot be opened says why among its problems.

    Raises:
        PPDError: The path is no folder, or holds nothing that is known.
    """
    uris = recognise(path)
    if not uris:
        known = "".join(f"\n  {layout}" for layout in LAYOUTS)
        raise PPDError(f"{path} holds no known layout (see docs/datasets.md):{known}")
    return [_checked(uri, progress) for uri in uris]


def _checked(uri: str, progress: bool) -> SceneCheck:
    try:
        return check_scenes(uri, progress)
    except PPDError as error:
        return SceneCheck(uri, problems=(str(error),))


@dataclass(frozen=True)
class _Facts:
    """What is kept of a scene that was read."""

    group: str
    category: str
    side: int
    share: float


def _facts(source: SceneSource, index: int) -> _Facts | str:
    """Read one scene; return what is kept of it, or what is wrong."""
    try:
        scene = source[index]
    except SceneError as error:
        return str(error)
    share = float(scene.mask.mean())
    return _Facts(scene.group, scene_class(scene.name), max(scene.mask.shape), share)


def _facts_of_all(source: SceneSource) -> Iterator[_Facts | str]:
    """Read all scenes, those in files on several threads, because decoding needs no lock of Python's."""
    threads = (os.cpu_count() or 1) if isinstance(source, FileSource) else 1
    pool = ThreadPoolExecutor(threads)
    try:
        yield from pool.map(lambda index: _facts(source, index), range(len(source)))
    finally:
        pool.shutdown(cancel_futures=True)


def _missing(source: SceneSource) -> list[str]:
    """Return what was published and is not here."""
    found: list[str] = list(source.missing()) if isinstance(source, FileSource) else []
    return found


def _published(source: SceneSource) -> dict[str, Any] | None:
    """Return what is known of a published set."""
    about = source.published if isinstance(source, FileSource) else None
    return None if about is None else asdict(about)


def _shown(title: str, lines: tuple[str, ...]) -> list[str]:
    """Return the first lines of a list, and how many more there are."""
    if not lines:
        return []
    more = [f"  ... and {len(lines) - _SHOWN} more; --json PATH writes all."] if len(lines) > _SHOWN else []
    return [title, *(f"  {line}" for line in lines[:_SHOWN]), *more]


@dataclass(frozen=True)
class ReferenceList:
    """The references of a set.

    Args:
        uri: The scenes.
        name: Name of the set.
        version: Version of the rule.
        seed: The seed.
        chosen: The references.
        targets: Number of scenes that share no image with any of them.
        listed: Whether a list of this set was published.
    """

    uri: str
    name: str
    version: int
    seed: int
    chosen: tuple[Reference, ...]
    targets: int
    listed: bool

    def text(self) -> str:
        """Return lines for a terminal."""
        lines = [
            f"{self.uri}: {len(self.chosen)} references by rule {self.version}, seed {self.seed}; "
            f"{self.targets} targets share no image with any of them."
        ]
        for one in self.chosen:
            note = {None: "", True: "  (as published)", False: "  (not in the published list)"}[one.published]
            lines.append(f"  {one.rank}  {one.name}{note}")
        if not self.listed:
            lines.append(
                f"No list was published for this set ({self.name!r}): the rule and your files' names decide."
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "chosen": [asdict(one) for one in self.chosen]}


def list_references(uri: str, count: int, seed: int) -> ReferenceList:
    """Choose the references of a set; see ``ppd_env.scenes.references``.

    Args:
        uri: The scenes.
        count: References per class.
        seed: The seed.

    Returns:
        The references.

    Raises:
        PPDError: The URI is wrong, or the set cannot have references.
    """
    chosen = references(uri, count, seed)
    name = set_name(uri)
    listed = any(one.published is not None for one in chosen)
    return ReferenceList(uri, name, VERSION, seed, tuple(chosen), len(targets(uri, chosen)), listed)
