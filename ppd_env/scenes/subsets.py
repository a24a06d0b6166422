"""Random parts of a set that depend on names alone, so that anyone can draw the same ones.

Every name gets a rank of its own, the SHA-256 of the set, the seed and the name. A file that is missing, or
one too many, therefore changes nothing about the order of the others, and no generator has to stay the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ppd_env.errors import ConfigError, SceneError
from ppd_env.scenes.files import SceneFiles
from ppd_env.scenes.scene import scene_class
from ppd_env.uris import Uri

DRAW_VERSION = 1
"""Raised by one whenever the same names give other parts."""

NARROWING = ("count", "list", "seed")
"""Keys of ``narrowed``, which most sets take."""


def ranked(names: Iterable[str], *salt: object) -> list[str]:
    """Return names in a random order that depends on ``salt`` and on each name alone.

    Args:
        names: Any strings; one that occurs twice is kept once.
        salt: What the order is for, such as a purpose, a version, a set and a seed.

    Returns:
        The names, by the SHA-256 of ``"salt/salt/.../name"`` (UTF-8).
    """
    start = "/".join(map(str, salt))
    return sorted(set(names), key=lambda name: hashlib.sha256(f"{start}/{name}".encode()).hexdigest())


def drawn(names: Iterable[str], count: int, source: str, seed: int) -> list[str]:
    """Return the first ``count`` names of a set in the order of a seed.

    Args:
        names: The names.
        count: How many.
        source: Name of the set.
        seed: The seed.
    """
    return ranked(names, "ppd-draw", DRAW_VERSION, source, seed)[:count]


def seed_of(uri: Uri) -> int:
    """Return the seed a URI names, 0 without one.

    Raises:
        ConfigError: It is no integer, or negative.
    """
    seed = uri.integer("seed", 0)
    if seed < 0:
        raise ConfigError(f"{uri.text!r}: seed must not be negative, got {seed}.")
    return seed


def count_of(uri: Uri, default: int) -> int:
    """Return the count a URI names.

    Raises:
        ConfigError: It is no integer, or less than 1.
    """
    count = uri.integer("count", default)
    if count < 1:
        raise ConfigError(f"{uri.text!r}: count must be at least 1, got {count}.")
    return count


def narrowed(uri: Uri, name: str, root: Path, entries: Sequence[SceneFiles]) -> list[SceneFiles]:
    """Keep the scenes a URI asks for.

    ``list=FILE`` keeps what a text file names, one name per line: a scene, a class or an image, with or
    without the image's ending; ``count=K&seed=S`` then keeps K scenes drawn by seed.

    Args:
        uri: The URI.
        name: Name of the set.
        root: Where a relative FILE is looked for.
        entries: All scenes.

    Returns:
        Those that are kept, in their order.

    Raises:
        ConfigError: A key has an impossible value.
        SceneError: The list cannot be read, or names nothing that is here; or there are fewer than K scenes.
    """
    kept = listed(uri, root, entries)
    if "count" not in uri.query:
        seed_of(uri)
        return kept
    count = count_of(uri, 1)
    if count > len(kept):
        raise SceneError(str(root), f"holds {len(kept)} scenes, fewer than count={count} in {uri.text!r}.")
    chosen = set(drawn((entry.name for entry in kept), count, name, seed_of(uri)))
    return [entry for entry in kept if entry.name in chosen]


def listed(uri: Uri, root: Path, entries: Sequence[SceneFiles]) -> list[SceneFiles]:
    """Keep the scenes that the file ``list`` of a URI names, all where it names no file; see ``narrowed``.

    A line that fits nothing becomes a scene with a problem.
    """
    if "list" not in uri.query:
        return list(entries)
    path = root / Path(uri.query["list"]).expanduser()
    wanted = dict.fromkeys(line.strip() for line in _lines(path) if line.strip())
    hit: set[str] = set()
    kept = []
    for entry in entries:
        hits = wanted.keys() & _handles(entry)
        hit |= hits
        if hits:
            kept.append(entry)
    if not kept:
        raise SceneError(str(path), f"names nothing that lies in {root}; it needs one name per line.")
    absent = [line for line in wanted if line not in hit]
    reason = f"names this, which is not in {root}; add it or take it out of the list."
    return kept + [SceneFiles(line, problem=SceneError(f"{path}: {line}", reason)) for line in absent]


def _handles(entry: SceneFiles) -> set[str]:
    """Return the names a list may call a scene by."""
    names = {entry.name, scene_class(entry.name), entry.group}
    if entry.image is not None:
        names |= {entry.image.name, entry.image.stem}
    return names - {""}


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SceneError(str(path), f"cannot be read ({error.strerror}); check list= in the URI.") from None
    except UnicodeDecodeError:
        raise SceneError(str(path), "is no text file; list= takes one name per line.") from None


def choice(uri: Uri, key: str, default: str, known: Sequence[str]) -> str:
    """Return what a URI chooses among known values.

    Raises:
        ConfigError: It chooses something else.
    """
    value = uri.query.get(key, default)
    if value not in known:
        raise ConfigError(f"{uri.text!r}: unknown {key} {value!r}; known: {', '.join(known)}.")
    return value


def root_of(uri: Uri, inside: Sequence[str], fits: Callable[[Path], bool], missing: str) -> Path:
    """Return the folder of a published set, at the path of a URI or just below it.

    Args:
        uri: The URI.
        inside: Where it may lie below the path; ``"."`` is the path itself. The first that fits is taken.
        fits: Whether a folder is the one.
        missing: What to say where none is: what should be here, and where to get it.

    Raises:
        ConfigError: The URI has no path.
        SceneError: The path is no folder, or holds nothing of the kind.
    """
    if not uri.path:
        raise ConfigError(f"{uri.text!r}: name the folder of the set, as in {uri.scheme}:///data/mine.")
    path = Path(uri.path).expanduser()
    if not path.is_dir():
        raise SceneError(str(path), f"is not a folder; check the path in {uri.text!r}.")
    for part in inside:
        if fits(path / part):
            return path / part if part != "." else path
    raise SceneError(str(path), missing)
