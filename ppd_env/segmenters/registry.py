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


LOADERS: dict[str, Callable[[Uri, torch.device], Segmenter]] = {"fake": _fake, "mini": _mini}
"""Scheme -> loader; add to it to offer a segmenter of your own."""

_registry = Registry("segmenter", LOADERS)


def load_segmenter(uri: str, device: torch.device | str = "cpu") -> Segmenter:
    """Return the segmenter a URI names, loaded once per process and device.

    Args:
        uri: ``"mini"``, ``"mini:PATH"`` (a file of weights) or ``"fake"``.
        device: A torch device.

    Returns:
        The segmenter.

    Raises:
        ConfigError: The scheme is unknown or its arguments are wrong.
    """
    return _registry.load(uri, device)
