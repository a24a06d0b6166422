"""Measure what geodesic distances segment alone: no network, the sign whose prompts are nearer."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from experiments.train_mini.evaluate import REAL, ideal_dice
from ppd_env.segmenters.contract import Embedding
from ppd_env.segmenters.letterbox import letterbox, points_to_square
from ppd_env.segmenters.mini.config import MiniConfig
from ppd_env.segmenters.mini.geodesic import GeodesicDistance, edge_strength


@dataclass(frozen=True)
class Measurement:
    """What to measure.

    Args:
        shapes: Procedural scenes.
        draws: Draws of the ideal prompts per real image.
        data: Folder of real data sets; empty to leave them out. The default is $PPD_DATA.
        seed: Seed of the prompts.
    """

    shapes: str = "shapes://test?count=500&seed=0"
    draws: int = 2
    data: str = os.environ.get("PPD_DATA", "")
    seed: int = 0


class NearestSign:
    """A segmenter of nothing but ``GeodesicDistance`` as it is before training."""

    uri = signature = "geodesic"

    def __init__(self) -> None:
        config = MiniConfig()
        self.side, self.dim, self.low_res = config.image_size, config.dim, config.low_res
        self.device = torch.device("cpu")
        self.ways = GeodesicDistance(config.dim).requires_grad_(False)

    def embed(self, image: np.ndarray) -> Embedding:
        """Sum up the costs of the cells of one (H, W, 3) uint8 RGB image."""
        pixels = torch.from_numpy(letterbox(image, self.side)).permute(2, 0, 1)[None].float()
        nothing8 = torch.zeros(1, self.dim // 4, self.low_res // 2, self.low_res // 2)
        nothing4 = torch.zeros(1, self.dim // 8, self.low_res, self.low_res)
        costs = self.ways.costs(edge_strength(pixels), nothing8, nothing4)
        return Embedding({"costs": costs}, torch.tensor([image.shape[:2]]))

    def decode(
        self,
        embedding: Embedding,
        points: Tensor,
        labels: Tensor,
        mask: Tensor | None = None,
        multimask: bool = False,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode B prompt sets; see ``segmenters.contract.Segmenter.decode``."""
        embedding = embedding if rows is None else embedding[rows]
        square = points_to_square(points, embedding.sizes)
        column, row = (square * self.low_res).long().clamp(0, self.low_res - 1).unbind(-1)
        nearer = self.ways(embedding.tensors["costs"], row * self.low_res + column, labels)[:, :1]
        return nearer, torch.ones(len(nearer), 1)


def measure(job: Measurement) -> dict[str, float]:
    """Mean native Dice with jittered ideal prompts, by set of scenes."""
    sets = {"shapes": (job.shapes, 1), "photos_test": ("photos://test", 5 * job.draws)}
    for name in REAL if job.data else ():
        sets[name] = (f"folder://{Path(job.data).resolve() / name}", job.draws)
    segmenter = NearestSign()
    return {name: ideal_dice(uri, segmenter, draws, job.seed) for name, (uri, draws) in sets.items()}


if __name__ == "__main__":
    print(json.dumps(measure(tyro.cli(Measurement)), indent=2))
