"""Many scenes as stacked tensors on one device: everything about them that never changes during games."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ppd_env.errors import SceneError
from ppd_env.features.contract import FeatureExtractor
from ppd_env.scenes.cache import CacheEntry
from ppd_env.scenes.encoding import Encoder, load_encoder
from ppd_env.scenes.patches import patch_centres
from ppd_env.scenes.scene import HeldScenes, RawScene, SceneSource
from ppd_env.scenes.sources import open_source
from ppd_env.scenes.survey import EMBEDDING, FEATURES, survey
from ppd_env.segmenters.contract import Embedding, Segmenter
from ppd_env.segmenters.letterbox import valid_area

_DESCRIBED = ("truth", "void", "peak", "target")
"""Fields that follow from the scenes alone."""


@dataclass(frozen=True, eq=False)
class SceneBank:
    """S scenes, seen by one segmenter and one feature extractor on a g x g grid (N = g * g nodes).

    Images are not kept: ``raw`` reads a scene again.

    Args:
        source: Where the scenes come from.
        uri: The URI of the source.
        grid: g, patches per side.
        device: Where every tensor lies.
        names: S names, unique.
        groups: S groups; scenes of one group are not independent (same photograph).
        indices: S positions in the source.
        problems: The scenes left out, each with its reason.
        features: (S, N, d) float32.
        positions: (N, 2) float32 in [0, 1], patch centres (x, y) in the unit square.
        points: (S, N, 2) float32, patch centres (x, y) in pixels of each image.
        truth: (S, N) bool, patch centre inside the mask.
        void: (S, N) bool, patch centre on a pixel of which nobody knows what it is.
        peak: (S,) int64, node deepest inside the mask (see ``peak_node``).
        target: (S, h, w) bool, ground truth in the segmenter's low-resolution square, never empty.
        valid: (S, h, w) bool, cells that show the image.
        counted: (S, h, w) bool, cells that count in a score: those of ``valid`` that are not void.
        embedding: The segmenter's embedding of all S images.
    """

    source: SceneSource
    uri: str
    grid: int
    device: torch.device
    names: list[str]
    groups: list[str]
    indices: list[int]
    problems: list[SceneError]
    features: Tensor
    positions: Tensor
    points: Tensor
    truth: Tensor
    void: Tensor
    peak: Tensor
    target: Tensor
    valid: Tensor
    counted: Tensor
    embedding: Embedding

    def __len__(self) -> int:
        """Return S."""
        return len(self.names)

    def raw(self, row: int) -> RawScene:
        """Return the image and native mask of row ``row``, read again from the source."""
        return self.source[self.indices[row]]


def build_bank(
    scenes: str,
    segmenter: Segmenter,
    features: FeatureExtractor,
    grid: int,
    *,
    cache: bool = True,
    progress: bool = False,
) -> SceneBank:
    """Bring all scenes of a URI together, reading from the disk cache whatever it holds.

    Each image is encoded once, whatever bank it appears in, and kept as soon as it is, so that an interrupted
    build goes on where it stopped. A scene that cannot be used is left out; one warning names each such file
    and its reason.

    Args:
        scenes: URI of the scenes.
        segmenter: Embeds the images; its device becomes the bank's.
        features: Describes the patches.
        grid: g, patches per side.
        cache: Read and write the disk cache.
        progress: Show a progress bar.

    Returns:
        The bank.

    Raises:
        ConfigError: The URI or the grid makes no sense.
        SceneError: No scene can be used; the message gives every reason.
    """
    return bank_of(open_source(scenes), Encoder(segmenter, features, grid), cache=cache, progress=progress)


def bank_of(
    source: SceneSource, encoder: Encoder, *, cache: bool = True, progress: bool = False
) -> SceneBank:
    """Bring all scenes of a source together; see ``build_bank``.

    Args:
        source: The scenes, which need no URI that others could open.
        encoder: Both models.
        cache: Read and write the disk cache.
        progress: Show a progress bar.

    Returns:
        The bank.

    Raises:
        SceneError: No scene can be used; the message gives every reason.
    """
    entry, stacked = survey(source, encoder, cache=cache, progress=progress)
    bank = _assemble(entry, stacked, source, encoder)
    _report(bank)
    return bank


def held_bank(scenes: HeldScenes, encoder: Encoder, *, cache: bool = True) -> SceneBank:
    """Bring scenes together that were read before; ``raw`` returns them as they are.

    Args:
        scenes: The scenes.
        encoder: Both models; the bank lies on the segmenter's device.
        cache: Read the images' encodings from the disk cache, and keep new ones there.

    Returns:
        The bank. Of the scenes as a set nothing is kept.
    """
    entry, stacked = survey(scenes, encoder, cache=cache, progress=False, whole=False)
    return _assemble(entry, stacked, scenes, encoder)


_opened: dict[tuple[str, str, str, int, str], SceneBank] = {}
_lock = threading.RLock()


def open_bank(
    scenes: str,
    segmenter: str,
    features: str,
    grid: int,
    device: str = "cpu",
    *,
    cache: bool = True,
    progress: bool = False,
) -> SceneBank:
    """Return the bank of these URIs, built once per process.

    Args:
        scenes: URI of the scenes.
        segmenter: URI of the segmenter.
        features: URI of the features; plain ``"segmenter"`` means those of ``segmenter``.
        grid: g, patches per side.
        device: A torch device.
        cache: Read and write the disk cache.
        progress: Show a progress bar while building.

    Returns:
        The bank; callers share it and must not write into it.
    """
    key = (scenes, segmenter, features, grid, str(torch.device(device)))
    with _lock:
        if key not in _opened:
            encoder = load_encoder(segmenter, features, grid, device)
            _opened[key] = bank_of(open_source(scenes), encoder, cache=cache, progress=progress)
        return _opened[key]


def _assemble(
    entry: CacheEntry, stacked: Mapping[str, Tensor], source: SceneSource, encoder: Encoder
) -> SceneBank:
    """Turn what is known of the scenes and of their images into a bank on the segmenter's device."""
    device, positions, notes = encoder.segmenter.device, patch_centres(encoder.grid), entry.notes
    sizes = entry.tensors["sizes"]
    valid = valid_area(sizes, encoder.segmenter.low_res)
    embedded = {
        name.removeprefix(EMBEDDING): tensor.to(device)
        for name, tensor in stacked.items()
        if name.startswith(EMBEDDING)
    }
    return SceneBank(
        source=source,
        uri=source.uri,
        grid=encoder.grid,
        device=device,
        names=list(notes["names"]),
        groups=list(notes["groups"]),
        indices=list(notes["indices"]),
        problems=[SceneError(file, reason) for file, reason in notes["problems"]],
        features=stacked[FEATURES].to(device),
        positions=positions.to(device),
        points=(positions * sizes.flip(1)[:, None].float()).to(device),
        valid=valid.to(device),
        counted=(valid & ~entry.tensors["left_out"]).to(device),
        embedding=Embedding(embedded, sizes.to(device)),
        **{name: entry.tensors[name].to(device) for name in _DESCRIBED},
    )


def _report(bank: SceneBank) -> None:
    """Warn once about all scenes left out."""
    if bank.problems:
        listed = "\n".join(f"  {problem}" for problem in bank.problems)
        total = len(bank) + len(bank.problems)
        warnings.warn(
            f"{len(bank.problems)} of {total} scenes of {bank.uri} are left out:\n{listed}", stacklevel=3
        )
