"""The rule by which the references of a set are chosen.

Papers on one-shot segmentation rarely say which image was the reference, and results depend on it. Here every
scene of a class has a rank of its own (``subsets.ranked`` over scene names, salted with this rule's version,
the set and the seed), and the references are the first usable ones, each from another image. Adding or losing
files changes the order of no other.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tqdm import tqdm

from ppd_env.errors import ConfigError, SceneError
from ppd_env.scenes.files import FileSource
from ppd_env.scenes.references.lists import PublishedList, published_lists
from ppd_env.scenes.scene import Listed, SceneSource
from ppd_env.scenes.sources import open_source
from ppd_env.scenes.subsets import ranked
from ppd_env.uris import parse_uri

VERSION = 1
"""Raised by one whenever the same set gives other references."""

LEAST_SHARE = 0.01
"""Share of its image that a reference's object covers at least, where its class has such images."""


@dataclass(frozen=True)
class Reference:
    """A scene that serves as one-shot reference.

    Args:
        rank: 0 for the first reference of its class, 1 for the second, ...
        category: Its class; "" in a set without classes.
        name: Name of the scene.
        group: Its image.
        index: Its place in the source.
        sha256: SHA-256 of its image's file, by which others can tell that theirs is the same; empty where
            it lies in none.
        published: Whether the published list of its set holds it; None where there is no such list.
    """

    rank: int
    category: str
    name: str
    group: str
    index: int
    sha256: str = ""
    published: bool | None = None


def references(uri: str, count: int = 5, seed: int = 0) -> list[Reference]:
    """Choose the references of a set, for every class where it has classes.

    A scene that cannot be read is passed over, and so is one whose object covers less than ``LEAST_SHARE`` of
    its image, unless its class has too few others. A class of n images has at most n - 1 references, so
    that a target is left; one of a single image has none.

    Args:
        uri: The scenes to choose from.
        count: References per class.
        seed: Another seed gives other references.

    Returns:
        At most ``count`` per class, from different images; the first ones of all classes come first.

    Raises:
        ConfigError: The URI or an argument makes no sense, or no class has two images.
        SceneError: The set is not there.
    """
    if count < 1 or seed < 0:
        raise ConfigError(f"references need count of at least 1 and a seed from 0, got {count} and {seed}.")
    source, name = open_source(uri), set_name(uri)
    by_class: dict[str, list[Listed]] = defaultdict(list)
    for scene in listing(source):
        by_class[scene.category].append(scene)
    chosen = []
    for category in tqdm(sorted(by_class), desc="choosing references", unit="class", delay=2, leave=False):
        scenes = {scene.name: scene for scene in by_class[category]}
        order = [scenes[one] for one in rank(scenes, name, seed)]
        for place, scene in enumerate(_first_usable(source, order, count)):
            digest = _image_digest(source, scene.index)
            chosen.append(Reference(place, category, scene.name, scene.group, scene.index, digest))
    if not chosen:
        raise ConfigError(
            f"{uri!r} has no class with two usable images: one-shot prompts need another image."
        )
    return sorted(_marked(chosen, name, seed), key=lambda reference: (reference.rank, reference.category))


def targets(uri: str, chosen: Iterable[Reference]) -> list[int]:
    """Return the scenes that can be measured with these references.

    Pass the references of all ranks, and every repetition is measured on the same targets.

    Args:
        uri: The scenes; those the references were chosen from, or others of the same set.
        chosen: The references.

    Returns:
        Places in the source of all scenes that share no image with a reference, and whose class has one.
    """
    chosen = list(chosen)
    images = {reference.group for reference in chosen}
    classes = {reference.category for reference in chosen}
    return [
        scene.index
        for scene in listing(open_source(uri))
        if scene.group not in images and scene.category in classes
    ]


def rank(names: Iterable[str], name: str, seed: int) -> list[str]:
    """Return the names of scenes in the order in which they become references.

    Args:
        names: Names of scenes of one class.
        name: Name of the set.
        seed: The seed.
    """
    return ranked(names, "ppd-reference", VERSION, name, seed)


def set_name(uri: str) -> str:
    """Return what the set of a URI is called in reference lists, such as ``"isic2018"``."""
    source = open_source(uri)
    return source.name if isinstance(source, FileSource) else parse_uri(uri).scheme


def listing(source: SceneSource) -> list[Listed]:
    """Return the scenes of a source that nothing is known against.

    Sources without files are read for it; their scenes have no class, since their names tell of places only.
    """
    if isinstance(source, FileSource):
        return source.listing()
    found = []
    for index in tqdm(range(len(source)), desc=f"listing {source.uri}", unit="scene", delay=2, leave=False):
        try:
            scene = source[index]
        except SceneError:
            continue
        found.append(Listed(index, scene.name, scene.group))
    return found


def _image_digest(source: SceneSource, index: int) -> str:
    """Return the SHA-256 of a scene's image file, empty where it lies in none."""
    path = source.entries[index].image if isinstance(source, FileSource) else None
    return "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def _marked(chosen: Sequence[Reference], name: str, seed: int) -> list[Reference]:
    """Say of each reference whether it was published, where a list is of this very set."""

    def listed(one: PublishedList, reference: Reference) -> bool:
        return one.holds(reference.category, reference.name, reference.sha256)

    fitting = [
        one
        for one in published_lists(name, VERSION, seed)
        if not one.sha256 or any(listed(one, reference) for reference in chosen)
    ]
    if not fitting:
        return list(chosen)
    return [replace(one, published=any(listed(known, one) for known in fitting)) for one in chosen]


def _first_usable(source: SceneSource, order: Sequence[Listed], count: int) -> list[Listed]:
    """Return the first scenes of a class that can be references, each from another image."""
    count = min(count, len({scene.group for scene in order}) - 1)
    large: list[Listed] = []
    small: list[Listed] = []
    seen: set[str] = set()
    for scene in order:
        if len(large) >= count:
            break
        if scene.group in seen:
            continue
        try:
            share = float(source[scene.index].mask.mean())
        except SceneError:
            continue
        if share >= LEAST_SHARE:
            seen.add(scene.group)
        (large if share >= LEAST_SHARE else small).append(scene)
    spare = [scene for scene in small if scene.group not in seen]
    distinct = {scene.group: scene for scene in reversed(spare)}
    rest = [scene for scene in spare if distinct[scene.group] is scene]
    return (large + rest)[:count] if count > 0 else []
