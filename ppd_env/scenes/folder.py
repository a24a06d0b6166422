"""``folder:///path``: any images with masks, paired by file name.

An image ``images/[CLASS/]STEM.ext`` belongs to the masks ``masks/[CLASS/]STEM.ext``: a mask in a class folder
belongs to the image of that class or, without one, to the image beside the class folders, which may have
masks of several classes. One scene is one mask.
"""

from __future__ import annotations

from pathlib import Path

from ppd_env.errors import ConfigError, SceneError
from ppd_env.scenes.files import FileSource, ImageFiles, paired, warn_ignored
from ppd_env.scenes.reading import MaskRule
from ppd_env.uris import Uri

_KEYS = ("class", "images", "masks", "pattern", "threshold", "void")
_VERSION = 2
"""Raised by one whenever the same files give other scenes."""


class FolderSource(FileSource):
    """Scenes from a folder of images and a folder of masks.

    Files that are not images, and folders deeper than one class level, are ignored with one warning that
    names them. A file without its partner keeps its place and raises ``SceneError`` when its scene is read.

    Args:
        uri: ``folder:///path?images=images&masks=masks``. Further keys: ``threshold=T`` (mask values of at
            least T are foreground) or ``class=K`` (the value K is); ``void=K`` (pixels of the value K count
            neither way); ``pattern={stem}_mask`` where a mask's stem is not its image's stem.

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
        rule = _mask_rule(uri)
        root = Path(uri.path).expanduser()
        before, after = _pattern(uri)
        images = ImageFiles(_folder(root, uri, "images"))
        masks = ImageFiles(_folder(root, uri, "masks"), before, after)
        if images.root.resolve() == masks.root.resolve():
            raise ConfigError(
                f"{uri.text!r}: images and masks must lie in two folders, not both in {images.root}."
            )
        super().__init__(uri.text, "folder", _VERSION, paired(images, masks, rule))
        warn_ignored(uri.text, images.ignored + masks.ignored)


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
    values = {key: uri.integer(key, 0) for key in ("threshold", "class", "void") if key in uri.query}
    for key, value in values.items():
        if value < (1 if key == "threshold" else 0):
            raise ConfigError(f"{uri.text!r}: {key}={value} is too small to name a foreground.")
    if "void" in values and values["void"] == values.get("class"):
        raise ConfigError(f"{uri.text!r}: class and void must be two values.")
    return MaskRule(values.get("threshold"), values.get("class"), values.get("void"))


def _pattern(uri: Uri) -> tuple[str, str]:
    """Return what a mask's stem has before and after its image's stem."""
    pattern = uri.query.get("pattern", "{stem}")
    before, found, after = pattern.partition("{stem}")
    if not found or "{stem}" in after:
        raise ConfigError(f"{uri.text!r}: pattern must hold {{stem}} once, as in pattern={{stem}}_mask.")
    return before, after
