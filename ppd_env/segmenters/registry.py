"""Segmenters by URI, one of each per process."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ppd_env.loading import Registry
from ppd_env.segmenters.contract import Segmenter
from ppd_env.uris import Uri


def _fake(uri: Uri, device: torch.device) -> Segmenter:
    from ppd_env.segmenters.fake import FakeSegmenter

    uri.require_bare()
    return FakeSegmenter(device)


def _mini(uri: Uri, device: torch.device) -> Segmenter:
    from ppd_env.segmenters.mini import load_mini

    return load_mini(uri, device)


def _checkpoint(uri: Uri, device: torch.device) -> Segmenter:
    from ppd_env.segmenters.sam.checkpoint import load_checkpoint

    return load_checkpoint(uri, device)


def _transformers(uri: Uri, device: torch.device) -> Segmenter:
    from ppd_env.segmenters.sam.from_transformers import load_transformers

    return load_transformers(uri, device)


LOADERS: dict[str, Callable[[Uri, torch.device], Segmenter]] = {
    "checkpoint": _checkpoint,
    "edgetam": _transformers,
    "fake": _fake,
    "mini": _mini,
    "sam": _transformers,
    "sam2": _transformers,
    "samhq": _transformers,
}
"""Scheme -> loader; add to it to give a segmenter of your own a scheme."""

_registry = Registry("segmenter", LOADERS, Segmenter)


def load_segmenter(uri: str, device: torch.device | str = "cpu") -> Segmenter:
    """Return the segmenter a URI names, loaded once per process and device.

    Args:
        uri: ``"mini"``, ``"mini:PATH"`` (a file of weights), ``"sam:MODEL"``, ``"samhq:MODEL"``,
            ``"sam2:MODEL"``, ``"edgetam:MODEL"`` (MODEL on the Hugging Face hub or a folder),
            ``"checkpoint:vit_h:PATH"`` (a file of the segment-anything package), ``"fake"``, or
            ``"module:callable?key=value"``: the callable is imported and called with the parsed URI and the
            device, as the loaders are.
        device: A torch device.

    Returns:
        The segmenter.

    Raises:
        ConfigError: The scheme is unknown, its arguments are wrong, or a package or weights are missing.
    """
    return _registry.load(uri, device)
