"""Measure ``mini``: clicks and ideal prompts on shapes, photographs and, where present, real data."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import tyro
from tqdm import tqdm

from ppd_agents.evaluation.tables import versions
from ppd_env.features.registry import load_features
from ppd_env.metrics import dice, iou
from ppd_env.prompting.ideal import ideal_prompts
from ppd_env.scenes.bank import build_bank
from ppd_env.scenes.scene import SceneSource
from ppd_env.scenes.sources import open_source
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
    if max(d.max() for d in depths) == 0:  # the mask is perfect: click the middle of the object once more
        inside = cv2.distanceTransform(np.pad(truth.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        depths[0] = inside
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
    true, predicted = clicks(open_source(job.shapes), segmenter)
    for number in range(true.shape[1]):
        results[f"shapes.iou_after_{number + 1}"] = float(true[:, number].mean())
    results["shapes.iou_correlation"] = float(np.corrcoef(true.ravel(), predicted.ravel())[0, 1])
    results["shapes.iou_correlation_1"] = float(np.corrcoef(true[:, 0], predicted[:, 0])[0, 1])
    return results | {
        f"{name}.dice_jittered": score for name, score in all_ideal_dice(job, segmenter).items()
    }


def scene_sets(job: Measurement) -> dict[str, tuple[str, int]]:
    """Return the sets of scenes that are there, by name: URI and draws of the prompts per scene."""
    sets = {"shapes": (job.shapes, 1), "photos_test": ("photos://test", 5 * job.draws)}
    for name in REAL if job.data else ():
        folder = Path(job.data).resolve() / name
        if folder.exists():
            sets[name] = (f"folder://{folder}", job.draws)
    return sets


def all_ideal_dice(job: Measurement, segmenter: Segmenter) -> dict[str, float]:
    """Measure ``ideal_dice`` on every set of scenes.

    Returns:
        Dice by name; ``real`` is the average of the five real sets where all of them are there.
    """
    found = {
        name: ideal_dice(uri, segmenter, draws, job.seed) for name, (uri, draws) in scene_sets(job).items()
    }
    if set(REAL) <= set(found):
        found["real"] = float(np.mean([found[name] for name in REAL]))
    return found


def facts(job: Measurement, results: dict[str, float], seconds: float) -> dict[str, Any]:
    """Return a result file: the numbers with all that decides them. Folders are named without their place."""
    return {
        "command": "python -m experiments.train_mini.evaluate",
        "seeds": [job.seed],
        "versions": versions(),
        "seconds": round(seconds, 1),
        "segmenter": load_segmenter(job.weights).signature,
        "scenes": {name: open_source(uri).signature for name, (uri, _) in scene_sets(job).items()},
        "draws": {name: draws for name, (_, draws) in scene_sets(job).items()},
        "results": results,
    }


def main(job: Measurement) -> None:
    """Measure, print and, where asked to, write the numbers."""
    began = time.perf_counter()
    results = measure(job)
    text = json.dumps(facts(job, results, time.perf_counter() - began), indent=2) + "\n"
    print(text, end="")
    if job.json_path:
        aside = Path(job.json_path + ".tmp")
        aside.write_text(text)
        aside.rename(job.json_path)


if __name__ == "__main__":
    main(tyro.cli(Measurement))
