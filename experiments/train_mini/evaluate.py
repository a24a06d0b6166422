"""Measure ``mini``: clicks and ideal prompts on shapes, photographs and, where present, real data."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import tyro
from tqdm import tqdm

from ppd_env.features.registry import load_features
from ppd_env.metrics import dice, iou
from ppd_env.prompting.ideal import ideal_prompts
from ppd_env.scenes.bank import build_bank
from ppd_env.scenes.scene import SceneSource
from ppd_env.segmenters.contract import Segmenter
from ppd_env.segmenters.letterbox import upscale_logits
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator

REAL = ("kvasir_seg", "isic2018", "coco200", "fss1000", "persam_examples")
GRID = 16


@dataclass(frozen=True)
class Measurement:
    """What to measure.

    Args:
        weights: ``mini`` for the shipped weights, or ``mini:PATH``.
        shapes: Procedural scenes.
        draws: Draws of the ideal prompts per scene.
        data: Folder of real data sets; empty to leave them out. The default is $PPD_DATA.
        json_path: Where to write the numbers; empty for nowhere.
        seed: Seed of the prompts.
    """

    weights: str = "mini"
    shapes: str = "shapes://test?count=500&seed=0"
    draws: int = 2
    data: str = os.environ.get("PPD_DATA", "")
    json_path: str = ""
    seed: int = 0


def ideal_dice(scenes: str, segmenter: Segmenter, draws: int, seed: int) -> float:
    """Mean native Dice with jittered ideal prompts."""
    bank = build_bank(scenes, segmenter, load_features("fake"), GRID, cache=False, progress=True)
    simulator = Simulator(bank, segmenter)
    scores = []
    truths = [bank.raw(row).mask for row in range(len(bank))]
    for draw in range(draws):
        status = [
            ideal_prompts(truth, peak, np.random.default_rng([seed, draw, row]))
            for row, (truth, peak) in enumerate(zip(bank.truth.numpy(), bank.peak.tolist(), strict=True))
        ]
        masks = simulator.native_masks(torch.arange(len(bank)), torch.from_numpy(np.stack(status)))
        scores += [dice(mask, truth) for mask, truth in zip(masks, truths, strict=True)]
    return float(np.mean(scores))


def next_click(shown: np.ndarray, truth: np.ndarray) -> tuple[tuple[int, int], int]:
    """Click the point deepest inside the larger kind of error, as RITM does (Sofiiuk et al. 2021).

    Args:
        shown: (H, W) bool, the current mask.
        truth: (H, W) bool.

    Returns:
        ((x, y), label) in pixels.
    """
    depths = []
    for wrong in (truth & ~shown, shown & ~truth):
        padded = np.pad(wrong.astype(np.uint8), 1)
        depths.append(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1])
    kind = int(depths[1].max() > depths[0].max())
    y, x = np.unravel_index(int(depths[kind].argmax()), truth.shape)
    return (int(x), int(y)), 1 - kind


def clicks(source: SceneSource, segmenter: Segmenter, rounds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Simulate corrective clicks on every scene of a source.

    Args:
        source: The scenes.
        segmenter: What is clicked.
        rounds: Clicks per scene.

    Returns:
        true and predicted IoU after each click, (count, rounds) each.
    """
    count = len(source)
    true, predicted = np.zeros((count, rounds)), np.zeros((count, rounds))
    for index in tqdm(range(count), desc="clicks"):
        scene = source[index]
        truth, embedding = scene.mask, segmenter.embed(scene.image)
        shown = np.zeros(truth.shape, bool)
        points: list[tuple[int, int]] = []
        labels: list[int] = []
        for number in range(rounds):
            point, label = next_click(shown, truth)
            points.append(point)
            labels.append(label)
            logits, estimate = segmenter.decode(
                embedding, torch.tensor([points], dtype=torch.float32) + 0.5, torch.tensor([labels])
            )
            shown = (upscale_logits(logits[0, 0], truth.shape) > 0).numpy()
            true[index, number], predicted[index, number] = iou(shown, truth), float(estimate[0, 0])
    return true, predicted


def measure(job: Measurement) -> dict[str, float]:
    """Measure everything and return it by name."""
    cv2.setNumThreads(1)
    segmenter = load_segmenter(job.weights)
    results: dict[str, float] = {}
    from ppd_env.scenes.sources import open_source

    source = open_source(job.shapes)
    true, predicted = clicks(source, segmenter)
    for number in range(true.shape[1]):
        results[f"shapes.iou_after_{number + 1}"] = float(true[:, number].mean())
    results["shapes.iou_correlation"] = float(np.corrcoef(true.ravel(), predicted.ravel())[0, 1])
    results["shapes.iou_correlation_1"] = float(np.corrcoef(true[:, 0], predicted[:, 0])[0, 1])
    results["shapes.dice_jittered"] = ideal_dice(job.shapes, segmenter, 1, job.seed)
    results["photos_test.dice_jittered"] = ideal_dice("photos://test", segmenter, 5 * job.draws, job.seed)
    if job.data:
        for name in REAL:
            folder = Path(job.data).resolve() / name
            if folder.exists():
                score = ideal_dice(f"folder://{folder}", segmenter, job.draws, job.seed)
                results[f"{name}.dice_jittered"] = score
        found = [results[f"{name}.dice_jittered"] for name in REAL if f"{name}.dice_jittered" in results]
        results["real.dice_jittered"] = float(np.mean(found))
    return results


if __name__ == "__main__":
    settings = tyro.cli(Measurement)
    numbers = measure(settings)
    print(json.dumps(numbers, indent=2))
    if settings.json_path:
        aside = Path(settings.json_path + ".tmp")
        facts = {"seed": settings.seed, "weights": settings.weights, "results": numbers}
        aside.write_text(json.dumps(facts, indent=2) + "\n")
        aside.rename(settings.json_path)
