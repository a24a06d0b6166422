"""Put trained weights into the package: half precision, with sizes and feature scale in the metadata."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import tyro
from safetensors.torch import load_file, save_file

from ppd_env.scenes.sources import open_source
from ppd_env.segmenters.letterbox import letterbox
from ppd_env.segmenters.mini.config import MiniConfig
from ppd_env.segmenters.mini.network import MiniNetwork
from ppd_env.segmenters.mini.segmenter import WEIGHTS


@dataclass(frozen=True)
class Export:
    """What to put where.

    Args:
        weights: ``mini.safetensors`` written by the training.
        out: Where the package looks for its weights.
        scenes: Scenes the feature scale is measured on.
    """

    weights: Path
    out: Path = WEIGHTS
    scenes: str = "shapes://val?count=64&seed=0"


@torch.no_grad()
def feature_scale(network: MiniNetwork, scenes: str) -> float:
    """Mean distance between the embedding vectors of two patches of one image."""
    source = open_source(scenes)
    distances = []
    for index in range(len(source)):
        pixels = torch.from_numpy(letterbox(source[index].image, network.config.image_size)).permute(2, 0, 1)
        tokens = network.encoder(pixels[None].float())[0][0]
        distances.append(torch.cdist(tokens, tokens).mean())
    return float(torch.stack(distances).mean())


def export(job: Export) -> None:
    """Write the weights, aside first."""
    network = MiniNetwork(MiniConfig()).eval()
    state = load_file(job.weights)
    network.load_state_dict({name: value.float() for name, value in state.items()}, strict=False)
    metadata = {
        "config": json.dumps(asdict(network.config)),
        "feature_scale": f"{feature_scale(network, job.scenes):.6f}",
    }
    job.out.parent.mkdir(parents=True, exist_ok=True)
    aside = job.out.with_suffix(".tmp")
    save_file(state, aside, metadata=metadata)
    aside.rename(job.out)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    print(f"{job.out}: {millions:.2f} M parameters, {job.out.stat().st_size / 1e6:.2f} MB, {metadata}")


if __name__ == "__main__":
    export(tyro.cli(Export))
