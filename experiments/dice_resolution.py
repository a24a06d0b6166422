"""How far Dice on low-resolution logits, which rewards use, lies from Dice at native size.

Run ``python -m experiments.dice_resolution``; ``--segmenter`` and ``--scenes`` choose others, ``--json``
writes the numbers. Each scene gets ideal prompts and the same prompts with a share of wrong signs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ppd_env.prompting import corrupt, ideal_prompts
from ppd_env.scenes.bank import SceneBank, open_bank
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator

SCENES = ("photos://test", "shapes://val?count=100&seed=0")
WRONG = 0.2
"""Share of prompts that get the wrong sign."""


def compare(bank: SceneBank, segmenter: str, seed: int) -> dict[str, float]:
    """Measure both on one bank.

    Args:
        bank: The scenes.
        segmenter: URI of the segmenter whose embedding it holds.
        seed: Of the prompts.

    Returns:
        In percent points: means of both Dice, mean and largest absolute difference, the same of the change
        from ideal to wrong prompts, and the percentage of changes that have the same sign.
    """
    rng = np.random.default_rng(seed)
    ideal = [
        ideal_prompts(truth.numpy(), int(peak), rng, void=void.numpy())
        for truth, peak, void in zip(bank.truth.cpu(), bank.peak, bank.void.cpu(), strict=True)
    ]
    wrong = [corrupt("wrong_sign", status, WRONG, rng) for status in ideal]
    simulator = Simulator(bank, load_segmenter(segmenter, str(bank.device)))
    rows = torch.arange(len(bank), device=bank.device)
    low, native = [], []
    for statuses in (ideal, wrong):
        found = simulator.segment(rows, torch.from_numpy(np.stack(statuses)))
        low.append(found.dice.cpu())
        native.append(simulator.native_dice(rows, found.logits).cpu())
    both = 100 * (torch.cat(low) - torch.cat(native)).abs()
    low_change, native_change = 100 * (low[1] - low[0]), 100 * (native[1] - native[0])
    return {
        "low": float(100 * torch.cat(low).mean()),
        "native": float(100 * torch.cat(native).mean()),
        "difference": float(both.mean()),
        "largest": float(both.max()),
        "change_difference": float((low_change - native_change).abs().mean()),
        "change_largest": float((low_change - native_change).abs().max()),
        "same_sign": float(100 * (low_change.sign() == native_change.sign()).float().mean()),
    }


def resolution_table(results: Mapping[str, Mapping[str, float]]) -> str:
    """Write what ``compare`` found on each set of scenes, as Markdown, in percent points."""
    heads = ["scenes", "mean Dice, low", "native", "mean difference", "largest"]
    heads += ["mean difference of rewards", "largest", "rewards of one sign"]
    names = ["low", "native", "difference", "largest", "change_difference", "change_largest", "same_sign"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for uri, found in results.items():
        numbers = [f"{found[name]:.2f}" for name in names[:-1]] + [f"{found['same_sign']:.0f} %"]
        lines.append("| " + " | ".join([f"`{uri}`", *numbers]) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table with one line per set of scenes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", nargs="+", default=SCENES)
    parser.add_argument("--segmenter", default="mini")
    parser.add_argument("--grid", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    results = {}
    for uri in given.scenes:
        bank = open_bank(uri, given.segmenter, "mini", given.grid, given.device, progress=True)
        results[uri] = compare(bank, given.segmenter, given.seed)
    print(resolution_table(results))
    if given.json:
        aside = given.json.with_name(given.json.name + ".tmp")
        aside.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        aside.replace(given.json)


if __name__ == "__main__":
    main()
