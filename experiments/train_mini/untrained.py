"""Measure what geodesic distances segment alone: no network, the sign whose prompts are nearer."""

from __future__ import annotations

import json

import numpy as np
import torch
import tyro
from torch import Tensor

from experiments.train_mini.evaluate import Measurement, all_ideal_dice
from ppd_env.segmenters.contract import Embedding
from ppd_env.segmenters.letterbox import letterbox, points_to_square
from ppd_env.segmenters.mini.config import MiniConfig
from ppd_env.segmenters.mini.geodesic import GeodesicDistance, edge_strength


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


if __name__ == "__main__":
    print(json.dumps(all_ideal_dice(tyro.cli(Measurement), NearestSign()), indent=2))
