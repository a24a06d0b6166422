"""Scene sources by URI, one of each per process."""

from __future__ import annotations

from collections.abc import Callable

from ppd_env.errors import ConfigError
from ppd_env.scenes.scene import SceneSource
from ppd_env.uris import Uri, parse_uri


def _shapes(uri: Uri) -> SceneSource:
    from ppd_env.scenes.shapes import ShapesSource

    return ShapesSource(uri)


def _photos(uri: Uri) -> SceneSource:
    from ppd_env.scenes.photos import PhotosSource

    return PhotosSource(uri)


def _mixed(uri: Uri) -> SceneSource:
    from ppd_env.scenes.mixed import MixedSource

    return MixedSource(uri)


def _folder(uri: Uri) -> SceneSource:
    from ppd_env.scenes.folder import FolderSource

    return FolderSource(uri)


def _fss1000(uri: Uri) -> SceneSource:
    from ppd_env.scenes.datasets.fss1000 import FssSource

    return FssSource(uri)


def _voc(uri: Uri) -> SceneSource:
    from ppd_env.scenes.datasets.voc import VocSource

    return VocSource(uri)


def _isic(uri: Uri) -> SceneSource:
    from ppd_env.scenes.datasets.isic import IsicSource

    return IsicSource(uri)


def _kvasir(uri: Uri) -> SceneSource:
    from ppd_env.scenes.datasets.kvasir import KvasirSource

    return KvasirSource(uri)


def _coco(uri: Uri) -> SceneSource:
    from ppd_env.scenes.datasets.coco import CocoSource

    return CocoSource(uri)


OPENERS: dict[str, Callable[[Uri], SceneSource]] = {
    "shapes": _shapes,
    "photos": _photos,
    "mixed": _mixed,
    "folder": _folder,
    "fss1000": _fss1000,
    "voc": _voc,
    "isic": _isic,
    "kvasir": _kvasir,
    "coco": _coco,
}
"""Scheme -> opener; add to it to give scenes of your own a scheme."""

_opened: dict[str, SceneSource] = {}


def open_source(uri: str) -> SceneSource:
    """Return the scenes a URI names, opened once per process.

    Args:
        uri: For example ``"shapes://train?count=1000&seed=0"``, ``"photos://test"``,
            ``"folder:///data/mine?images=images&masks=masks"`` or ``"voc:///data?year=2012&split=val"``; or
            ``"module:callable?key=value"``: the callable is imported and called with the parsed URI, as the
            openers are.

    Returns:
        The source.

    Raises:
        ConfigError: The scheme is unknown or its arguments are wrong.
        SceneError: The folder it names is missing or holds no images.
    """
    if uri not in _opened:
        parsed = parse_uri(uri)
        _opened[uri] = _open(parsed)
    return _opened[uri]


def _open(uri: Uri) -> SceneSource:
    known = [f"{scheme}://" for scheme in sorted(OPENERS)]
    if uri.scheme in OPENERS:
        return OPENERS[uri.scheme](uri)
    if uri.names_callable:
        made: SceneSource = uri.make_imported("source of scenes", known, SceneSource, uri)
        return made
    raise ConfigError(f"Unknown scenes {uri.text!r}; known schemes: {', '.join(known)}, module:callable.")
