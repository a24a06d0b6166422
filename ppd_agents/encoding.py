"""What ``ppd encode`` does: bring the images of some scenes into the cache, here or on a Ray cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ppd_agents.ray_workers import RayWorkers
from ppd_env.errors import SceneError
from ppd_env.paths import cache_dir
from ppd_env.scenes.encoding import EncoderFacts, EncodingCache, Part, Parts, load_encoder
from ppd_env.scenes.image_cache import image_digest
from ppd_env.scenes.scene import SceneSource
from ppd_env.scenes.sources import open_source

GIVE_UP_AFTER = 5
"""Images in a row that the disk refuses before encoding more of them is a waste."""

Job = tuple[str, np.ndarray, tuple[Part, ...]]
"""An image's digest, the image, and what is missing of it."""


@dataclass(frozen=True)
class EncodeConfig:
    """What is to be encoded, and where.

    Args:
        scenes: URI of the scenes.
        segmenter: URI of the segmenter.
        features: URI of the patch features; ``"segmenter"`` means those of ``segmenter``.
        grid: g, patches per side.
        device: A torch device; with ``ray`` it is ``"cpu"`` or ``"cuda"``.
        ray: Spread the images over a Ray cluster.
        workers: Ray workers; where None, one for each GPU, or machine on the CPU.
    """

    scenes: str
    segmenter: str = "mini"
    features: str = "mini"
    grid: int = 16
    device: str = "cpu"
    ray: bool = False
    workers: int | None = None


@dataclass
class EncodeReport:
    """What became of the images.

    Args:
        config: What was asked for.
        scenes: Scenes of the source.
        folder: Where the cache lies.
        encoded: Images of which something was computed and kept.
        found: Images that the cache held already.
        refused: Images that were computed and could not be kept.
        left_out: Scenes that cannot be used, each as one sentence that names the file.
        written: Bytes written.
        seconds: Time it took.
        gave_up: Whether it stopped early because the disk refused image after image.
    """

    config: EncodeConfig
    scenes: int
    folder: Path
    encoded: int = 0
    found: int = 0
    refused: int = 0
    left_out: list[str] = field(default_factory=list)
    written: int = 0
    seconds: float = 0.0
    gave_up: bool = False

    def text(self) -> str:
        """Return lines for a terminal."""
        lines = [
            f"{self.config.scenes}: {self.scenes} scenes, grid {self.config.grid} x {self.config.grid}",
            f"  encoded   {self.encoded} images ({self.written / 1e6:.1f} MB, {self.seconds:.1f} s)",
            f"  found     {self.found} images in {self.folder}",
        ]
        if self.refused:
            remedy = "free some space there and run the same command again; it goes on where it stopped."
            stopped = ", so it stopped early" if self.gave_up else ""
            lines.append(f"  not kept  {self.refused} images: the disk refused them{stopped}; {remedy}")
        lines.append(f"  left out  {len(self.left_out)} scenes" + (":" if self.left_out else ""))
        return "\n".join(lines + [f"    {problem}" for problem in self.left_out])

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "command": "encode",
            "config": dict(vars(self.config)),
            "scenes": self.scenes,
            "folder": str(self.folder),
            "encoded": self.encoded,
            "found": self.found,
            "not_kept": self.refused,
            "left_out": self.left_out,
            "bytes": self.written,
            "seconds": round(self.seconds, 3),
            "gave_up": self.gave_up,
        }


def encode_scenes(config: EncodeConfig, *, progress: bool = False) -> EncodeReport:
    """Encode the images of a URI that the cache does not hold yet, one at a time.

    Each is kept as soon as it is computed: after an interruption the same call goes on where it stopped.

    Args:
        config: What, and where.
        progress: Show a progress bar.

    Returns:
        What became of the images.

    Raises:
        PPDError: A URI makes no sense, a model cannot be loaded, or no scene can be used.
    """
    begun = time.monotonic()
    source = open_source(config.scenes)
    report = EncodeReport(config, len(source), cache_dir() / "embeddings")
    with _models(config) as models:
        store = EncodingCache(models.facts())
        in_a_row = 0
        for digest, parts in models.encode(_missing(source, store, report, progress)):
            kept = store.write(digest, parts)
            report.encoded += kept
            report.refused += not kept
            in_a_row = 0 if kept else in_a_row + 1
            if in_a_row >= GIVE_UP_AFTER:
                report.gave_up = True
                break
    report.written, report.seconds = store.written, time.monotonic() - begun
    if not report.encoded + report.found + report.refused:
        reasons = "; ".join(report.left_out) or "the source is empty"
        raise SceneError(source.uri, f"no scene can be used: {reasons}")
    return report


def _missing(
    source: SceneSource, store: EncodingCache, report: EncodeReport, progress: bool
) -> Iterator[Job]:
    """Read scene after scene, and give out each image once of which the cache lacks something."""
    seen: set[str] = set()
    for index in tqdm(range(len(source)), desc=f"encoding {source.uri}", unit="scene", disable=not progress):
        try:
            image = source[index].image
        except SceneError as problem:
            report.left_out.append(str(problem))
            continue
        digest = image_digest(image)
        if digest in seen:
            continue
        seen.add(digest)
        missing = store.missing(digest)
        if missing:
            yield digest, image, missing
        else:
            report.found += 1


class Models:
    """Both models in one process.

    Args:
        config: Names them.
    """

    def __init__(self, config: EncodeConfig) -> None:
        self._encoder = load_encoder(config.segmenter, config.features, config.grid, config.device)

    def facts(self) -> EncoderFacts:
        """Return what decides their results."""
        return self._encoder.facts

    def compute(self, digest: str, image: np.ndarray, missing: tuple[Part, ...]) -> tuple[str, Parts]:
        """Encode one image; what has come through Ray is read-only, and models may need their own copy."""
        return digest, self._encoder.compute(image if image.flags.writeable else image.copy(), missing)

    def encode(self, jobs: Iterator[Job]) -> Iterator[tuple[str, Parts]]:
        """Encode image after image."""
        for job in jobs:
            yield self.compute(*job)


class SpreadModels:
    """Both models on every worker of a Ray cluster.

    Args:
        workers: Each holds ``Models``.

    Raises:
        PPDError: The workers' models are not the same.
    """

    def __init__(self, workers: RayWorkers) -> None:
        self._workers = workers
        self._facts: EncoderFacts = workers.agree("facts")

    def facts(self) -> EncoderFacts:
        """Return what decides their results."""
        return self._facts

    def encode(self, jobs: Iterator[Job]) -> Iterator[tuple[str, Parts]]:
        """Encode images side by side; they come back in the order in which they are done."""
        return self._workers.map("compute", jobs)


@contextmanager
def _models(config: EncodeConfig) -> Iterator[Models | SpreadModels]:
    """Load the models here or on the cluster; workers end with the block."""
    if not config.ray:
        yield Models(config)
        return
    with RayWorkers(partial(Models, config), config.device, config.workers) as workers:
        yield SpreadModels(workers)
