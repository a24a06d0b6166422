"""``folder:///path``: any images with masks, paired by file name.

An image ``images/[CLASS/]STEM.ext`` belongs to the masks ``masks/[CLASS/]STEM.ext``: a mask in a class folder
belongs to the image of that class or, without one, to the image beside the class folders, which may have
masks of several classes. One scene is one mask.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path

from ppd_env.errors import ConfigError, SceneError
from ppd_env.scenes.reading import IMAGE_SUFFIXES, MaskRule, read_pair
from ppd_env.scenes.scene import RawScene
from ppd_env.uris import Uri

_KEYS = ("class", "images", "masks", "pattern", "threshold")
_VERSION = 1
"""Raised by one whenever the same files give other scenes."""


@dataclass(frozen=True, order=True)
class _Key:
    """Where a file stands below its root: its class folder ("" without one) and its stem."""

    category: str
    stem: str

    def __str__(self) -> str:
        return f"{self.category}/{self.stem}" if self.category else self.stem


@dataclass(frozen=True)
class _Entry:
    """One scene to be: its name, its files, or what keeps it from being read."""

    name: str
    image: Path | None = None
    mask: Path | None = None
    group: str = ""
    problem: SceneError | None = None


class FolderSource:
    """Scenes from a folder of images and a folder of masks.

    Files that are not images, and folders deeper than one class level, are ignored with one warning that
    names them. A file without its partner keeps its place and raises ``SceneError`` when its scene is read.

    Args:
        uri: ``folder:///path?images=images&masks=masks``. Further keys: ``threshold=T`` (mask values of at
            least T are foreground) or ``class=K`` (the value K is); ``pattern={stem}_mask`` where a mask's
            stem is not its image's stem.

    Raises:
        ConfigError: Unknown or contradictory keys.
        SceneError: A folder is missing, or no image or mask lies in it.
    """

    def __init__(self, uri: Uri) -> None:
        uri.require_keys(_KEYS)
        if not uri.path:
            raise ConfigError(
                f"{uri.text!r}: name a folder, as in folder:///data/mine?images=images&masks=masks."
            )
        self.uri = uri.text
        self.rule = _mask_rule(uri)
        self.root = Path(uri.path).expanduser()
        before, after = _pattern(uri)
        images = _Files(_folder(self.root, uri, "images"))
        masks = _Files(_folder(self.root, uri, "masks"), before, after)
        if images.root.resolve() == masks.root.resolve():
            raise ConfigError(
                f"{uri.text!r}: images and masks must lie in two folders, not both in {images.root}."
            )
        self.entries = _pair(images, masks)
        self.signature = self._sign()
        _warn_ignored(uri.text, images.ignored + masks.ignored)

    def __len__(self) -> int:
        """Return the number of masks, plus that of images without one."""
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
        assert entry.image is not None
        assert entry.mask is not None
        image, mask = read_pair(entry.image, entry.mask, self.rule)
        return RawScene(name=entry.name, image=image, mask=mask, group=entry.group)

    def _sign(self) -> str:
        """Return a hash of the rule and of every file's place, size and time of change."""
        digest = hashlib.sha256(f"{_VERSION} {self.rule}".encode())
        for entry in self.entries:
            digest.update(f"{entry.name} {entry.problem}".encode())
            for path in (entry.image, entry.mask):
                if path is not None:
                    facts = path.stat()
                    digest.update(f"{path} {facts.st_size} {facts.st_mtime_ns}".encode())
        return f"folder-{digest.hexdigest()[:16]}"


class _Files:
    """The images below one folder, at its top and one class level down.

    Args:
        root: The folder.
        before: What a file's stem has in front of the stem it is paired by.
        after: What it has behind.
    """

    def __init__(self, root: Path, before: str = "", after: str = "") -> None:
        self.root = root
        self.ignored: list[Path] = []
        self.found: dict[_Key, list[Path]] = {}
        for path in sorted(root.iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                for inner in sorted(path.iterdir()):
                    self._add(inner, path.name, before, after)
            else:
                self._add(path, "", before, after)
        if not self.found:
            raise SceneError(
                str(root), f"holds no images; known endings: {', '.join(sorted(IMAGE_SUFFIXES))}."
            )

    def _add(self, path: Path, category: str, before: str, after: str) -> None:
        """Take one file, or note that it is ignored; hidden files are passed over."""
        if path.name.startswith("."):
            return
        stem = path.stem
        fits = stem.startswith(before) and stem.endswith(after) and len(stem) > len(before) + len(after)
        if path.is_dir() or path.suffix.lower() not in IMAGE_SUFFIXES or not fits:
            self.ignored.append(path)
            return
        key = _Key(category, stem[len(before) : len(stem) - len(after)])
        self.found.setdefault(key, []).append(path)


def _pair(images: _Files, masks: _Files) -> list[_Entry]:
    """Give every mask its image, and every image without a mask its complaint."""
    entries: list[_Entry] = []
    used: set[_Key] = set()
    for key, paths in masks.found.items():
        image_key = _image_key(key, images)
        if image_key is not None:
            used.add(image_key)
        entries.append(_entry(key, paths, image_key, images))
    for key in images.found.keys() - used:
        path = images.found[key][0]
        problem = SceneError(str(path), f"has no mask {key}.* in {masks.root}; add one or remove the image.")
        entries.append(_Entry(name=str(key), problem=problem))
    return sorted(entries, key=lambda entry: entry.name)


def _image_key(key: _Key, images: _Files) -> _Key | None:
    """Return the image a mask belongs to: of its own class, or outside all classes."""
    return next((k for k in (key, _Key("", key.stem)) if k in images.found), None)


def _entry(key: _Key, paths: list[Path], image_key: _Key | None, images: _Files) -> _Entry:
    """Return the scene of one mask, or what keeps it from being one."""
    name = str(key)
    if image_key is None:
        reason = f"has no image {key}.* in {images.root}; add one or remove the mask."
        return _Entry(name=name, problem=SceneError(str(paths[0]), reason))
    for twins in (paths, images.found[image_key]):
        if len(twins) > 1:
            listed = ", ".join(path.name for path in twins)
            return _Entry(
                name=name,
                problem=SceneError(str(twins[0]), f"is one of several ({listed}); keep one of them."),
            )
    return _Entry(name=name, image=images.found[image_key][0], mask=paths[0], group=str(image_key))


def _folder(root: Path, uri: Uri, key: str) -> Path:
    """Return the folder of the images or of the masks."""
    if not root.is_dir():
        raise SceneError(str(root), f"is not a folder; check the path in {uri.text!r}.")
    folder = root / uri.query.get(key, key)
    if not folder.is_dir():
        inside = ", ".join(sorted(p.name for p in root.iterdir() if p.is_dir())) or "none"
        raise SceneError(
            str(folder), f"is not a folder; add {key}=NAME to the URI (folders there: {inside})."
        )
    return folder


def _mask_rule(uri: Uri) -> MaskRule:
    """Return what the URI says about foreground."""
    if "threshold" in uri.query and "class" in uri.query:
        raise ConfigError(f"{uri.text!r}: give threshold or class, not both.")
    values = {key: uri.integer(key, 0) for key in ("threshold", "class") if key in uri.query}
    for key, value in values.items():
        if value < (1 if key == "threshold" else 0):
            raise ConfigError(f"{uri.text!r}: {key}={value} is too small to name a foreground.")
    return MaskRule(threshold=values.get("threshold"), category=values.get("class"))


def _pattern(uri: Uri) -> tuple[str, str]:
    """Return what a mask's stem has before and after its image's stem."""
    pattern = uri.query.get("pattern", "{stem}")
    before, found, after = pattern.partition("{stem}")
    if not found or "{stem}" in after:
        raise ConfigError(f"{uri.text!r}: pattern must hold {{stem}} once, as in pattern={{stem}}_mask.")
    return before, after


def _warn_ignored(uri: str, paths: list[Path]) -> None:
    """Warn once about the files that are no images."""
    if paths:
        shown = ", ".join(str(path) for path in paths[:10]) + (", ..." if len(paths) > 10 else "")
        warnings.warn(
            f"{uri}: {len(paths)} entries are ignored (no images, too deep, or outside the pattern): {shown}",
            stacklevel=4,
        )
