"""Put trained weights into the package: half precision, with sizes and feature scale in the metadata."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import tyro
from safetensors.torch import load_file, save_file

from experiments.train_mini.evaluate import GRID
from ppd_env.features.mini import planes, sample
from ppd_env.scenes.sources import open_source
from ppd_env.segmenters.letterbox import letterbox
from ppd_env.segmenters.mini.config import MiniConfig
from ppd_env.segmenters.mini.network import MiniNetwork
from ppd_env.segmenters.mini.segmenter import WEIGHTS, load_weights


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
def feature_scales(network: MiniNetwork, scenes: str) -> list[float]:
    """Mean distances between two patches of one image in each of the encoder's outputs."""
    source = open_source(scenes)
    distances = []
    for index in range(len(source)):
        # These scenes are square: they fill the letterbox.
        pixels = torch.from_numpy(letterbox(source[index].image, network.config.image_size)).permute(2, 0, 1)
        parts = [sample(plane, (1, 1), GRID) for plane in planes(network.encoder(pixels[None].float()))]
        distances.append(torch.stack([torch.cdist(part, part).mean() for part in parts]))
    return [round(scale, 4) for scale in torch.stack(distances).mean(dim=0).tolist()]


def export(job: Export) -> None:
    """Write the weights, aside first."""
    network = MiniNetwork(MiniConfig()).eval()
    state = load_file(job.weights)
    load_weights(network, {name: value.float() for name, value in state.items()}, job.weights)
    metadata = {
        "config": json.dumps(asdict(network.config)),
        "feature_scales": json.dumps(feature_scales(network, job.scenes)),
    }
    job.out.parent.mkdir(parents=True, exist_ok=True)
    aside = job.out.with_suffix(".tmp")
    save_file(state, aside, metadata=metadata)
    aside.rename(job.out)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    print(f"{job.out}: {millions:.2f} M parameters, {job.out.stat().st_size / 1e6:.2f} MB, {metadata}")


if __name__ == "__main__":
    export(tyro.cli(Export))
