"""``ppd encode``: its options, and what it prints; ``encoding`` does the work, imported when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Encode:
    """Bring segmenter embeddings and patch features of all images into the cache; run again to go on."""

    uri: Annotated[Positional[str], arg(metavar="SCENES_URI")]
    """URI of scenes, such as folder:///data/mine?images=images&masks=masks."""
    segmenter: str = "mini"
    """URI of the segmenter."""
    features: str = "mini"
    """URI of the patch features, such as dinov2:facebook/dinov2-base; `segmenter`: the segmenter's own."""
    grid: int = 16
    """Patches per side; the paper has 40."""
    device: str = "cpu"
    """A torch device, such as cuda."""
    ray: bool = False
    """Spread the images over the GPUs (--device cuda) or machines of a Ray cluster: that of RAY_ADDRESS, or
    one that is started here."""
    ray_workers: int | None = None
    """Number of Ray workers; by default one for each GPU, or for each machine on the CPU."""
    json: Annotated[Path | None, arg(metavar="PATH")] = None
    """Write what was done here."""


def run_encode(options: Encode) -> int:
    """Encode, print what was done, and return the exit code: 1 where the disk refused images."""
    from ppd_agents.encoding import EncodeConfig, encode_scenes
    from ppd_env.whole_files import write_json

    config = EncodeConfig(
        scenes=options.uri,
        segmenter=options.segmenter,
        features=options.features,
        grid=options.grid,
        device=options.device,
        ray=options.ray,
        workers=options.ray_workers,
    )
    report = encode_scenes(config, progress=True)
    print(report.text())
    if options.json is not None:
        write_json(options.json, report.to_json())
    return 1 if report.refused else 0
