"""Feature extractors by URI, one of each per process."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ppd_env.errors import ConfigError
from ppd_env.features.contract import FeatureExtractor
from ppd_env.loading import Registry
from ppd_env.uris import Uri


def _fake(uri: Uri, device: torch.device) -> FeatureExtractor:
    from ppd_env.features.fake import FakeFeatures

    uri.require_bare()
    return FakeFeatures(device)


def _mini(uri: Uri, device: torch.device) -> FeatureExtractor:
    from ppd_env.features.mini import MiniFeatures

    uri.require_bare()
    return MiniFeatures(device)


def _segmenter(uri: Uri, device: torch.device) -> FeatureExtractor:
    from ppd_env.features.segmenter import SegmenterFeatures
    from ppd_env.segmenters.registry import load_segmenter

    rest = uri.text.partition(":")[2]
    if not rest:
        raise ConfigError("Features 'segmenter' need to know which one: write 'segmenter:mini', for example.")
    return SegmenterFeatures(load_segmenter(rest, device))


def _dino(uri: Uri, device: torch.device) -> FeatureExtractor:
    from ppd_env.features.dino import load_dino

    return load_dino(uri, device)


LOADERS: dict[str, Callable[[Uri, torch.device], FeatureExtractor]] = {
    "dinov2": _dino,
    "dinov3": _dino,
    "fake": _fake,
    "mini": _mini,
    "segmenter": _segmenter,
}
"""Scheme -> loader; add to it to give features of your own a scheme."""

_registry = Registry("features", LOADERS, FeatureExtractor)


def load_features(uri: str, device: torch.device | str = "cpu") -> FeatureExtractor:
    """Return the feature extractor a URI names, loaded once per process and device.

    Args:
        uri: ``"mini"``, ``"dinov2:MODEL"``, ``"dinov3:MODEL"`` (MODEL on the hub or a folder), ``"fake"``,
            ``"segmenter:SEGMENTER"``, or ``"module:callable?key=value"``: the callable is imported and called
            with the parsed URI and the device, as the loaders are.
        device: A torch device.

    Returns:
        The extractor.

    Raises:
        ConfigError: The scheme is unknown, its arguments are wrong, or a package or weights are missing.
    """
    return _registry.load(uri, device)
