"""Scenes that lie in files: listed without decoding any of them, read one by one."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ppd_env.errors import SceneError
from ppd_env.scenes.reading import IMAGE_SUFFIXES, MaskRule, read_pair
from ppd_env.scenes.scene import Listed, RawScene, scene_class


@dataclass(frozen=True)
class SceneFiles:
    """One scene to be: its files, or what keeps it from being read.

    Args:
        name: Name of the scene, ``[class/]image``.
        image: The image's file; None where there is none.
        mask: The file its mask comes from; None where there is none.
        group: The image it belongs to.
        rule: What is foreground in the mask.
        problem: Why it cannot be used; None where nothing is known against it.
    """

    name: str
    image: Path | None = None
    mask: Path | None = None
    group: str = ""
    rule: MaskRule = field(default_factory=MaskRule)
    problem: SceneError | None = None


@dataclass(frozen=True)
class Published:
    """What is known of a published set of images.

    Args:
        title: Its name.
        images: Number of images that were published in the part a URI names; None where that is not known.
        where: Where to get it.
        licence: What its publishers say about its use.
    """

    title: str
    images: int | None
    where: str
    licence: str


class FileSource:
    """Scenes in files; one without its partner keeps its place and raises ``SceneError`` when it is read.

    Args:
        uri: The URI the scenes were opened from.
        name: What the set is called in reference lists and draws, such as ``"isic2018"``; the same images
            have the same name, wherever they lie and whichever part of them the URI asks for.
        version: Raised by one whenever the same files give other scenes.
        entries: The scenes to be, in order.
        published: What the set should hold; None for a user's own files.
        decided_by: Whatever else decides the scenes, such as the hash of an annotation file.
    """

    def __init__(
        self,
        uri: str,
        name: str,
        version: int,
        entries: Sequence[SceneFiles],
        *,
        published: Published | None = None,
        decided_by: str = "",
    ) -> None:
        self.uri = uri
        self.name = name
        self.entries = list(entries)
        self.published = published
        self.signature = f"{name}-{_digest(f'{version} {decided_by}', self.entries)}"

    def __len__(self) -> int:
        """Return the number of scenes, those included of which one file is missing."""
        return len(self.entries)

    def __getitem__(self, index: int) -> RawScene:
        """Read scene ``index``.

        Raises:
            IndexError: The index is out of range.
            SceneError: The image or its mask is missing or cannot be used.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.uri!r} has scenes 0 to {len(self) - 1}, not {index}.")
        entry = self.entries[index]
        if entry.problem is not None:
            raise SceneError(entry.problem.file, entry.problem.reason)
        return self.read(entry)

    def read(self, entry: SceneFiles) -> RawScene:
        """Read one scene of which nothing bad is known yet.

        Raises:
            SceneError: Its files cannot be used.
        """
        assert entry.image is not None
        assert entry.mask is not None
        pair = read_pair(entry.image, entry.mask, entry.rule)
        return RawScene(entry.name, pair.image, pair.mask, entry.group, pair.void)

    def listing(self) -> list[Listed]:
        """Return the scenes that nothing is known against; no file is decoded."""
        return [
            Listed(index, entry.name, entry.group, scene_class(entry.name))
            for index, entry in enumerate(self.entries)
            if entry.problem is None
        ]

    def missing(self) -> list[str]:
        """Return what the published set has and this copy has not, as sentences; no file is decoded."""
        here = len({entry.image for entry in self.entries if entry.image is not None})
        if self.published is None or self.published.images is None or here >= self.published.images:
            return []
        return [f"{self.published.title}: {here} of the {self.published.images} published images are here."]


def _digest(start: str, entries: Iterable[SceneFiles]) -> str:
    """Return a hash of every scene's name, rule and problem, and of its files as they are now."""
    digest = hashlib.sha256(start.encode())
    facts: dict[Path, str] = {}
    for entry in entries:
        digest.update(f"{entry.name} {entry.rule} {entry.problem}".encode())
        for path in (entry.image, entry.mask):
            if path is not None:
                if path not in facts:
                    facts[path] = _facts(path)
                digest.update(facts[path].encode())
    return digest.hexdigest()[:16]


def _facts(path: Path) -> str:
    """Return what changes when a file does."""
    try:
        found = path.stat()
    except OSError:  # gone since it was listed, or a dangling link: reading it will say so
        return f"{path} gone"
    return f"{path} {found.st_size} {found.st_mtime_ns}"


@dataclass(frozen=True, order=True)
class FileKey:
    """Where a file stands below its root: its class folder ("" without one) and its stem."""

    category: str
    stem: str

    def __str__(self) -> str:
        return f"{self.category}/{self.stem}" if self.category else self.stem


class ImageFiles:
    """The images below one folder, at its top and one class level down.

    Args:
        root: The folder.
        before: What a file's stem has in front of the stem it is paired by.
        after: What it has behind.
        passed_over: Endings of names that are known to lie here and are no images of the set.

    Raises:
        SceneError: There is no image.
    """

    def __init__(
        self, root: Path, before: str = "", after: str = "", passed_over: tuple[str, ...] = ()
    ) -> None:
        self.root = root
        self.ignored: list[Path] = []
        self.found: dict[FileKey, list[Path]] = {}
        self._before, self._after, self._passed_over = before, after, passed_over
        for path in sorted(root.iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                for inner in sorted(path.iterdir()):
                    self._add(inner, path.name)
            else:
                self._add(path, "")
        if not self.found:
            raise SceneError(
                str(root), f"holds no images; known endings: {', '.join(sorted(IMAGE_SUFFIXES))}."
            )

    def _add(self, path: Path, category: str) -> None:
        """Take one file, or note that it is ignored; hidden files are passed over."""
        if path.name.startswith(".") or path.name.endswith(self._passed_over):
            return
        before, after, stem = self._before, self._after, path.stem
        fits = stem.startswith(before) and stem.endswith(after) and len(stem) > len(before) + len(after)
        if path.suffix.lower() not in IMAGE_SUFFIXES or not fits or path.is_dir():
            self.ignored.append(path)
            return
        key = FileKey(category, stem[len(before) : len(stem) - len(after)])
        self.found.setdefault(key, []).append(path)


def paired(images: ImageFiles, masks: ImageFiles, rule: MaskRule) -> list[SceneFiles]:
    """Give every mask its image, and every image without a mask its complaint.

    A mask in a class folder belongs to the image of that class or, without one, to the image beside the class
    folders, which may have masks of several classes.

    Args:
        images: The images.
        masks: The masks.
        rule: What is foreground in every mask.

    Returns:
        One entry per mask and per image without one, sorted by name.
    """
    entries: list[SceneFiles] = []
    used: set[FileKey] = set()
    for key, paths in masks.found.items():
        image_key = next((k for k in (key, FileKey("", key.stem)) if k in images.found), None)
        if image_key is not None:
            used.add(image_key)
        entries.append(_entry(key, paths, image_key, images, rule))
    for key in images.found.keys() - used:
        path = images.found[key][0]
        reason = f"has no mask {key}.* in {masks.root}; add one or remove the image."
        entries.append(SceneFiles(str(key), path, problem=SceneError(str(path), reason)))
    return sorted(entries, key=lambda entry: entry.name)


def _entry(
    key: FileKey, paths: list[Path], image_key: FileKey | None, images: ImageFiles, rule: MaskRule
) -> SceneFiles:
    """Return the scene of one mask, or what keeps it from being one."""
    name = str(key)
    if image_key is None:
        reason = f"has no image {key}.* in {images.root}; add one or remove the mask."
        return SceneFiles(name, mask=paths[0], problem=SceneError(str(paths[0]), reason))
    for twins in (paths, images.found[image_key]):
        if len(twins) > 1:
            listed = ", ".join(path.name for path in twins)
            problem = SceneError(str(twins[0]), f"is one of several ({listed}); keep one of them.")
            return SceneFiles(name, images.found[image_key][0], problem=problem)
    return SceneFiles(name, images.found[image_key][0], paths[0], str(image_key), rule)


def warn_ignored(uri: str, paths: Sequence[Path]) -> None:
    """Warn once about the files that are no images."""
    if paths:
        shown = ", ".join(str(path) for path in paths[:10]) + (", ..." if len(paths) > 10 else "")
        warnings.warn(
            f"{uri}: {len(paths)} entries are ignored (no images, too deep, or outside the pattern): {shown}",
            stacklevel=4,
        )
