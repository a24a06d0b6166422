"""Many scenes as stacked tensors on one device: everything about them that never changes during games."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ppd_env.errors import ConfigError, SceneError
from ppd_env.features.contract import FeatureExtractor
from ppd_env.scenes.cache import CacheEntry, read_entry, warn_unusable, write_entry
from ppd_env.scenes.scene import RawScene, SceneSource
from ppd_env.scenes.sources import open_source
from ppd_env.segmenters.contract import Embedding, Segmenter
from ppd_env.segmenters.letterbox import low_res_truth, valid_area

_FIELDS = ("features", "points", "truth", "void", "peak", "target", "valid", "counted", "sizes")
_EMBEDDING = "embedding."


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


def patch_centres(grid: int) -> Tensor:
    """Return the (x, y) patch centres of the unit square, (grid * grid, 2) float32; node i is row i // g."""
    axis = (torch.arange(grid, dtype=torch.float32) + 0.5) / grid
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def nodes_inside(mask: np.ndarray, grid: int) -> np.ndarray:
    """Return which patch centres lie inside a mask.

    Args:
        mask: (H, W) bool.
        grid: g.

    Returns:
        (g * g,) bool.
    """
    return _at_centres(mask, grid)


def peak_node(mask: np.ndarray, grid: int) -> int:
    """Return the node deepest inside a mask, by distance transform; the image's edge counts as outside.

    Args:
        mask: (H, W) bool, not empty.
        grid: g.

    Returns:
        The node whose patch centre lies deepest; where no centre lies inside, the one whose patch holds the
        deepest pixel.
    """
    bordered = np.pad(mask.astype(np.uint8), 1)
    depth = cv2.distanceTransform(bordered, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    at_centres = _at_centres(depth, grid)
    if at_centres.max() > 0:
        return int(at_centres.argmax())
    row, column = np.unravel_index(int(depth.argmax()), mask.shape)
    height, width = mask.shape
    return int((row + 0.5) * grid / height) * grid + int((column + 0.5) * grid / width)


def _at_centres(values: np.ndarray, grid: int) -> np.ndarray:
    """Return the (H, W) values at the patch centres, (g * g,)."""
    height, width = values.shape
    rows = ((np.arange(grid) + 0.5) * height / grid).astype(int)
    columns = ((np.arange(grid) + 0.5) * width / grid).astype(int)
    return values[np.ix_(rows, columns)].reshape(-1)


def build_bank(
    scenes: str,
    segmenter: Segmenter,
    features: FeatureExtractor,
    grid: int,
    *,
    cache: bool = True,
    progress: bool = False,
) -> SceneBank:
    """Encode all scenes of a URI, or take them from the disk cache.

    A scene that cannot be used is left out; one warning names each such file and its reason.

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
    if grid < 1:
        raise ConfigError(f"grid must be at least 1, got {grid}.")
    source = open_source(scenes)
    parts = _key_parts(source, segmenter, features, grid)
    entry = _read_checked(parts, grid, features.dim, segmenter.low_res) if cache else None
    if entry is None:
        entry = _encode(source, segmenter, features, grid, progress)
        if cache:
            write_entry(parts, entry)
    bank = _assemble(entry, source, grid, segmenter.device)
    _report(bank)
    return bank


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
    from ppd_env.features.registry import load_features
    from ppd_env.segmenters.registry import load_segmenter

    if features == "segmenter":
        features = f"segmenter:{segmenter}"
    key = (scenes, segmenter, features, grid, str(torch.device(device)))
    with _lock:
        if key not in _opened:
            model, extractor = load_segmenter(segmenter, device), load_features(features, device)
            _opened[key] = build_bank(scenes, model, extractor, grid, cache=cache, progress=progress)
        return _opened[key]


def _key_parts(
    source: SceneSource, segmenter: Segmenter, features: FeatureExtractor, grid: int
) -> dict[str, Any]:
    """Return everything that decides a bank's tensors."""
    return {
        "source": source.signature,
        "uri": source.uri,
        "indices": [0, len(source)],
        "segmenter": segmenter.signature,
        "features": features.signature,
        "grid": grid,
    }


@torch.no_grad()  # not inference_mode: learners differentiate through what they read from a bank
def _encode(
    source: SceneSource, segmenter: Segmenter, features: FeatureExtractor, grid: int, progress: bool
) -> CacheEntry:
    """Run both models over every scene of the source that can be read."""
    stack = _Stack(len(source))
    names: list[str] = []
    groups: list[str] = []
    indices: list[int] = []
    problems: list[SceneError] = []
    for index in tqdm(range(len(source)), desc=f"encoding {source.uri}", unit="scene", disable=not progress):
        try:
            scene = source[index]
        except SceneError as problem:
            problems.append(problem)
            continue
        stack.append(_encode_scene(scene, segmenter, features, grid))
        names.append(scene.name)
        groups.append(scene.group)
        indices.append(index)
    if not names:
        reasons = "; ".join(map(str, problems)) or "the source is empty"
        raise SceneError(source.uri, f"no scene can be used: {reasons}")
    notes = {
        "names": names,
        "groups": groups,
        "indices": indices,
        "problems": [[problem.file, problem.reason] for problem in problems],
    }
    return CacheEntry(stack.tensors(), notes)


def _encode_scene(
    scene: RawScene, segmenter: Segmenter, features: FeatureExtractor, grid: int
) -> dict[str, Tensor]:
    """Return the tensors of one scene, each with leading axis 1, on the CPU."""
    embedding = segmenter.embed(scene.image)
    height, width = scene.mask.shape
    void = np.zeros_like(scene.mask) if scene.void is None else scene.void
    target, left_out = map(torch.from_numpy, low_res_truth(scene.mask, scene.void, segmenter.low_res))
    valid = valid_area(embedding.sizes, segmenter.low_res)
    described = {
        "features": features.extract(scene.image, grid).float()[None],
        "points": (patch_centres(grid) * torch.tensor([width, height], dtype=torch.float32))[None],
        "truth": torch.from_numpy(nodes_inside(scene.mask, grid))[None],
        "void": torch.from_numpy(nodes_inside(void, grid))[None],
        "peak": torch.tensor([peak_node(scene.mask, grid)]),
        "target": target[None],
        "valid": valid,
        "counted": valid & ~left_out.to(valid.device),
        "sizes": embedding.sizes,
    }
    embedded = {_EMBEDDING + name: tensor for name, tensor in embedding.tensors.items()}
    return {name: tensor.cpu() for name, tensor in {**described, **embedded}.items()}


class _Stack:
    """Rows of named tensors, written into place one by one so that memory is held once.

    Args:
        capacity: Rows at most.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._count = 0
        self._stacked: dict[str, Tensor] = {}

    def append(self, row: Mapping[str, Tensor]) -> None:
        """Add one row; each tensor has leading axis 1."""
        for name, tensor in row.items():
            if name not in self._stacked:
                self._stacked[name] = torch.empty((self._capacity, *tensor.shape[1:]), dtype=tensor.dtype)
            self._stacked[name][self._count] = tensor[0]
        self._count += 1

    def tensors(self) -> dict[str, Tensor]:
        """Return the rows added so far."""
        return {name: tensor[: self._count] for name, tensor in self._stacked.items()}


def _read_checked(parts: Mapping[str, Any], grid: int, dim: int, low_res: int) -> CacheEntry | None:
    """Return the cached bank if its shapes are those this bank must have."""
    entry = read_entry(parts)
    if entry is None:
        return None
    notes, tensors, nodes = entry.notes, entry.tensors, grid * grid
    try:
        count = len(notes["names"])
        shapes = {
            "features": (count, nodes, dim),
            "points": (count, nodes, 2),
            "truth": (count, nodes),
            "void": (count, nodes),
            "peak": (count,),
            "target": (count, low_res, low_res),
            "valid": (count, low_res, low_res),
            "counted": (count, low_res, low_res),
            "sizes": (count, 2),
        }
        wrong = [name for name, shape in shapes.items() if tuple(tensors[name].shape) != shape]
        wrong += [name for name, tensor in tensors.items() if len(tensor) != count]
        if wrong or not len(notes["groups"]) == len(notes["indices"]) == count > 0:
            raise ValueError(f"the shapes of {wrong or 'its notes'} are not this bank's")
    except (KeyError, TypeError, ValueError) as error:
        warn_unusable(parts, error)
        return None
    return entry


def _assemble(entry: CacheEntry, source: SceneSource, grid: int, device: torch.device) -> SceneBank:
    """Turn stored tensors and notes into a bank on ``device``."""
    tensors = {name: tensor.to(device) for name, tensor in entry.tensors.items()}
    embedded = {
        name.removeprefix(_EMBEDDING): t for name, t in tensors.items() if name.startswith(_EMBEDDING)
    }
    return SceneBank(
        source=source,
        uri=source.uri,
        grid=grid,
        device=device,
        names=list(entry.notes["names"]),
        groups=list(entry.notes["groups"]),
        indices=list(entry.notes["indices"]),
        problems=[SceneError(file, reason) for file, reason in entry.notes["problems"]],
        positions=patch_centres(grid).to(device),
        embedding=Embedding(embedded, tensors["sizes"]),
        **{name: tensors[name] for name in _FIELDS if name != "sizes"},
    )


def _report(bank: SceneBank) -> None:
    """Warn once about all scenes left out."""
    if bank.problems:
        listed = "\n".join(f"  {problem}" for problem in bank.problems)
        total = len(bank) + len(bank.problems)
        warnings.warn(
            f"{len(bank.problems)} of {total} scenes of {bank.uri} are left out:\n{listed}", stacklevel=3
        )
