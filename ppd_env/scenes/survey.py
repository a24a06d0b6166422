"""The scenes of a source, one after the other: described, and their images handed to the encoder.

What follows from a source alone is kept in the cache, so that a bank is opened again without reading its
scenes; only images that have to be encoded are then read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ppd_env.errors import SceneError
from ppd_env.scenes.cache import CacheEntry, read_entry, warn_unusable, write_entry
from ppd_env.scenes.encoding import CachedEncoder, Encoder, EncodingCache
from ppd_env.scenes.image_cache import image_digest
from ppd_env.scenes.patches import nodes_inside, peak_node
from ppd_env.scenes.scene import RawScene, SceneSource
from ppd_env.segmenters.letterbox import low_res_truth

FEATURES = "features"
EMBEDDING = "embedding."
"""What stands before the names of a segmenter's tensors."""


class ImageStack:
    """What the models say about image after image, written into place so that memory is held once.

    Args:
        capacity: Images at most.
        encoder: Asked about every image.
    """

    def __init__(self, capacity: int, encoder: CachedEncoder) -> None:
        self._capacity, self._encoder = capacity, encoder
        self._count = 0
        self._stacked: dict[str, Tensor] = {}

    def add(self, digest: str, image: Callable[[], np.ndarray]) -> None:
        """Add one image; see ``CachedEncoder.encode``."""
        embedding, features = self._encoder.encode(digest, image)
        row = {FEATURES: features, **{EMBEDDING + name: t for name, t in embedding.tensors.items()}}
        for name, tensor in row.items():
            if name not in self._stacked:
                self._stacked[name] = torch.empty((self._capacity, *tensor.shape[1:]), dtype=tensor.dtype)
            self._stacked[name][self._count] = tensor[0]
        self._count += 1

    def tensors(self) -> dict[str, Tensor]:
        """Return the images added so far: ``features`` (S, N, d), and the embedding's tensors."""
        return {name: tensor[: self._count] for name, tensor in self._stacked.items()}


def survey(
    source: SceneSource, encoder: Encoder, *, cache: bool, progress: bool, whole: bool = True
) -> tuple[CacheEntry, dict[str, Tensor]]:
    """Describe all scenes of a source and encode their images, reading from the cache whatever it holds.

    Args:
        source: The scenes.
        encoder: Both models.
        cache: Read and write the disk cache.
        progress: Show a progress bar.
        whole: Keep what follows from the source alone as well, and not only what the models say about its
            images: of use where the same source is opened again.

    Returns:
        What follows from the scenes alone: the tensors ``truth`` and ``void`` (S, N) bool, ``peak`` (S,)
        int64, ``target`` and ``left_out`` (S, h, w) bool and ``sizes`` (S, 2) int64, the lists ``names``,
        ``groups``, ``indices``, ``images`` (digests) and ``problems``; and what the models say about the
        images, see ``ImageStack``.

    Raises:
        SceneError: No scene can be used; the message gives every reason.
    """
    store = EncodingCache(encoder.facts) if cache else None
    cached = CachedEncoder(encoder, store)
    parts = _key_parts(source, encoder)
    entry = _read_checked(parts, encoder) if cache and whole else None
    if entry is not None:
        try:
            return entry, _revisit(source, entry, ImageStack(len(source), cached), progress)
        except (_ChangedError, SceneError) as error:
            warn_unusable(parts, error)
    stack = ImageStack(len(source), cached)
    entry = _read_all(source, encoder, stack, progress)
    if store is not None and whole and not store.refusals:
        write_entry(parts, entry)
    return entry, stack.tensors()


def _key_parts(source: SceneSource, encoder: Encoder) -> dict[str, Any]:
    """Return everything that decides what is kept of a source."""
    return {
        "source": source.signature,
        "uri": source.uri,
        "indices": [0, len(source)],
        "grid": encoder.grid,
        "low_res": encoder.segmenter.low_res,
    }


def _read_all(source: SceneSource, encoder: Encoder, stack: ImageStack, progress: bool) -> CacheEntry:
    """Read every scene of the source once: describe it, and add its image to the stack."""
    described: list[dict[str, Tensor]] = []
    notes: dict[str, list[Any]] = {name: [] for name in ("names", "groups", "indices", "images", "problems")}
    for index in _bar(range(len(source)), source, progress):
        try:
            scene = source[index]
        except SceneError as problem:
            notes["problems"].append([problem.file, problem.reason])
            continue
        digest = image_digest(scene.image)
        stack.add(digest, partial(_its_image, scene))
        described.append(_describe(scene, encoder))
        facts = {"names": scene.name, "groups": scene.group, "indices": index, "images": digest}
        for name, value in facts.items():
            notes[name].append(value)
    if not described:
        reasons = (
            "; ".join(f"{file}: {reason}" for file, reason in notes["problems"]) or "the source is empty"
        )
        raise SceneError(source.uri, f"no scene can be used: {reasons}")
    return CacheEntry({name: torch.stack([row[name] for row in described]) for name in described[0]}, notes)


def _describe(scene: RawScene, encoder: Encoder) -> dict[str, Tensor]:
    """Return what follows from a scene alone."""
    void = np.zeros_like(scene.mask) if scene.void is None else scene.void
    target, left_out = low_res_truth(scene.mask, scene.void, encoder.segmenter.low_res)
    return {
        "truth": torch.from_numpy(nodes_inside(scene.mask, encoder.grid)),
        "void": torch.from_numpy(nodes_inside(void, encoder.grid)),
        "peak": torch.tensor(peak_node(scene.mask, encoder.grid)),
        "target": torch.from_numpy(target),
        "left_out": torch.from_numpy(left_out),
        "sizes": torch.tensor(scene.mask.shape),
    }


def _its_image(scene: RawScene) -> np.ndarray:
    return scene.image


class _ChangedError(Exception):
    """A source gives another image than when it was surveyed."""


def _revisit(source: SceneSource, entry: CacheEntry, stack: ImageStack, progress: bool) -> dict[str, Tensor]:
    """Encode the images of a surveyed source, reading again those that the cache does not hold."""
    rows = list(zip(entry.notes["indices"], entry.notes["images"], strict=True))
    for index, digest in _bar(rows, source, progress):
        stack.add(digest, partial(_same_image, source, index, digest))
    return stack.tensors()


def _same_image(source: SceneSource, index: int, digest: str) -> np.ndarray:
    """Read the image of a surveyed scene again.

    Raises:
        _ChangedError: It is another one now.
        SceneError: It cannot be used any more.
    """
    scene = source[index]
    if image_digest(scene.image) != digest:
        raise _ChangedError(f"scene {scene.name} has another image now")
    return scene.image


def _bar(rows: Sequence[Any], source: SceneSource, progress: bool) -> tqdm[Any]:
    return tqdm(rows, desc=f"encoding {source.uri}", unit="scene", disable=not progress)


def _read_checked(parts: Mapping[str, Any], encoder: Encoder) -> CacheEntry | None:
    """Return what the cache knows of a source if its shapes are those it must have."""
    entry = read_entry(parts)
    if entry is None:
        return None
    notes, tensors, low_res = entry.notes, entry.tensors, encoder.segmenter.low_res
    try:
        count = len(notes["names"])
        shapes = {
            "truth": (count, encoder.grid**2),
            "void": (count, encoder.grid**2),
            "peak": (count,),
            "target": (count, low_res, low_res),
            "left_out": (count, low_res, low_res),
            "sizes": (count, 2),
        }
        wrong = [name for name, shape in shapes.items() if tuple(tensors[name].shape) != shape]
        lengths = {len(notes[name]) for name in ("groups", "indices", "images")}
        if wrong or lengths != {count} or not count:
            raise ValueError(f"the shapes of {wrong or 'its notes'} are not this bank's")
        _ = notes["problems"]
    except (KeyError, TypeError, ValueError) as error:
        warn_unusable(parts, error)
        return None
    return entry
