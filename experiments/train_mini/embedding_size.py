"""Measure what a finer embedding costs ``mini``: decodes per second at 16, 24 and 32 cells a side.

The decoder's weights are random; its time does not depend on them. Sizes are timed in turn, several times
over, and medians are printed as ratios to the first.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
import tyro

from ppd_agents.evaluation.tables import versions
from ppd_env.segmenters.mini.config import MiniConfig
from ppd_env.segmenters.mini.decoder import MaskDecoder


@dataclass(frozen=True)
class Trial:
    """What is timed.

    Args:
        cells: Sides of the embedding.
        batch: Prompt sets per decode.
        points: Points per set.
        repeats: Times each size is measured.
    """

    cells: tuple[int, ...] = (16, 24, 32)
    batch: int = 32
    points: int = 30
    repeats: int = 15


@torch.inference_mode()
def seconds_per_decode(decoder: MaskDecoder, dim: int, cells: int, trial: Trial) -> float:
    """Time one batch of prompt sets on embeddings of ``cells`` x ``cells``; seconds per set."""
    batch = trial.batch
    image = torch.randn(batch, cells * cells, dim)
    side8 = torch.randn(batch, dim // 4, 2 * cells, 2 * cells)
    side4 = torch.randn(batch, dim // 8, 4 * cells, 4 * cells)
    prepared = decoder.prepare(image, side8, side4, torch.rand(batch, 1, 4 * cells, 4 * cells))
    points = torch.rand(batch, trial.points, 2)
    labels = torch.randint(-1, 2, (batch, trial.points))
    start = time.perf_counter()
    decoder(prepared, points, labels, None, slice(0, 1))
    return (time.perf_counter() - start) / batch


def measure(trial: Trial) -> dict[str, Any]:
    """Return decodes per second and the cost relative to the first size, by side, with what decides them."""
    config = MiniConfig()
    decoder = MaskDecoder(config).eval()
    times: dict[int, list[float]] = {cells: [] for cells in trial.cells}
    for _ in range(trial.repeats):
        for cells in trial.cells:
            times[cells].append(seconds_per_decode(decoder, config.dim, cells, trial))
    medians = {cells: statistics.median(found) for cells, found in times.items()}
    first = medians[trial.cells[0]]
    return {
        "command": "python -m experiments.train_mini.embedding_size",
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "trial": asdict(trial),
        "results": {
            str(cells): {"decodes_per_second": 1 / seconds, "relative_cost": seconds / first}
            for cells, seconds in medians.items()
        },
    }


if __name__ == "__main__":
    print(json.dumps(measure(tyro.cli(Trial)), indent=2))
