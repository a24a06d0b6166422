"""Draw the pictures of README and documentation from seeds: ``python -m experiments.pictures``.

Scenes are chosen by rule, not by eye: of the procedural ones the scene whose recovery lies closest to the
mean of all, of the photographs the one with the largest recovery.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ppd_agents.dqn.agent import GreedyAgent
from ppd_agents.evaluation.rollouts import generators, play
from ppd_agents.shipped import open_agent
from ppd_env.game.actions import Role
from ppd_env.graph import feature_distance, knn_edges, physical_distance
from ppd_env.prompting.coverage import patch_coverage
from ppd_env.prompting.ideal import ideal_prompts
from ppd_env.prompting.matching import matching_prompts
from ppd_env.prompting.noise import noise_prompts
from ppd_env.rendering import BAR, FONT, HIGHLIGHT, INK, MASK, PAPER, SMOOTH, Frame, draw
from ppd_env.scenes.bank import open_bank
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.simulator import Simulator

SHAPES, PHOTOS = "shapes://test?count=24&seed=0", "photos://test"
BUDGET = 6
STEPS = (1, 3, BUDGET)
GRID = 16
SEED = 0
HARM = 0.2
"""Dice an attack must cost for its scene to be chosen."""

GAP = 12
CAPTION = 0.125
"""Height of a caption as a share of its picture's width."""

QUALITY = 84


@dataclass(frozen=True)
class Episodes:
    """One attack and one defence on every scene of a set.

    Args:
        simulator: The S scenes and their segmenter.
        statuses: (S, N) int8 each: at the start, after ``STEPS`` of the attacker, then of the defender.
        dice: (7, S) Dice after each of them.
    """

    simulator: Simulator
    statuses: list[Tensor]
    dice: np.ndarray

    @property
    def recovery(self) -> np.ndarray:
        """(S,) share of the loss that was taken back; NaN where the attack cost less than ``HARM``."""
        clean, attacked, defended = self.dice[0], self.dice[len(STEPS)], self.dice[-1]
        lost = clean - attacked
        return np.where(lost >= HARM, (defended - attacked) / np.maximum(lost, HARM), np.nan)


def play_set(uri: str) -> Episodes:
    """Let the shipped attacker and defender play on every scene of a URI.

    Args:
        uri: The scenes.
    """
    simulator = Simulator(open_bank(uri, "mini", "mini", GRID), load_segmenter("mini"))
    bank = simulator.bank
    rngs = generators(SEED, bank.indices, 0)
    clean = [ideal_prompts(t.numpy(), int(p), r) for t, p, r in zip(bank.truth, bank.peak, rngs, strict=True)]
    statuses = [torch.from_numpy(np.stack(clean))]
    rows = torch.arange(len(bank))
    turns: tuple[tuple[Role, bool], ...] = (("attacker", False), ("defender", True))
    for role, stop in turns:
        agent = GreedyAgent(open_agent("mini", role), stop=stop)
        seen = play(
            simulator, rows, statuses[-1], agent, attacking=role == "attacker", budgets=STEPS, rngs=rngs
        )
        statuses += [seen[step] for step in STEPS]
    dice = np.stack([simulator.segment(rows, status).dice.numpy() for status in statuses])
    return Episodes(simulator, statuses, dice)


def panel(
    simulator: Simulator, row: int, status: Tensor, title: str, before: Tensor | None = None
) -> np.ndarray:
    """Draw one state of a scene's prompts with its mask.

    Args:
        simulator: The scenes.
        row: Which one.
        status: (N,) int8.
        title: What the caption says before Dice.
        before: (N,) int8; what has changed since is marked. None marks nothing.

    Returns:
        The picture (height, width, 3) uint8.
    """
    rows, batch = torch.tensor([row]), status[None]
    dice = float(simulator.segment(rows, batch).dice[0])
    changed = torch.zeros_like(status, dtype=torch.bool) if before is None else status != before
    picture = draw(
        Frame(
            scene=simulator.bank.raw(row),
            mask=simulator.native_masks(rows, batch)[0],
            points=simulator.bank.points[row].numpy(),
            status=status.numpy(),
            changed=changed.numpy(),
            caption=("", ""),
        )
    )
    return captioned(picture[:-BAR], f"{title}: Dice {dice:.2f}")


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """Set a line below a picture, large enough to be read where four pictures share the width of a page."""
    width = picture.shape[1]
    bar: np.ndarray = np.full((round(width * CAPTION), width, 3), PAPER, np.uint8)
    (widest, tall), _ = cv2.getTextSize(text, FONT, 1.0, 2)
    scale = min(width * CAPTION * 0.45 / tall, width * 0.94 / widest)
    at = (round(width * 0.03), round((len(bar) + tall * scale) / 2))
    cv2.putText(bar, text, at, FONT, scale, INK, 2, SMOOTH)
    return np.concatenate([picture, bar])


def beside(pictures: list[np.ndarray], height: int) -> np.ndarray:
    """Set pictures side by side, scaled to one height in pixels."""
    scaled = [
        cv2.resize(p, (round(p.shape[1] * height / p.shape[0]), height), interpolation=cv2.INTER_AREA)
        for p in pictures
    ]
    gap: np.ndarray = np.full((height, GAP, 3), 255, np.uint8)
    parts = [part for picture in scaled for part in (gap, picture)]
    return np.concatenate(parts[1:], axis=1)


def below(strips: list[np.ndarray]) -> np.ndarray:
    """Set strips below each other, scaled to the width of the narrowest."""
    width = min(strip.shape[1] for strip in strips)
    scaled = [
        cv2.resize(s, (width, round(s.shape[0] * width / s.shape[1])), interpolation=cv2.INTER_AREA)
        for s in strips
    ]
    gap: np.ndarray = np.full((GAP, width, 3), 255, np.uint8)
    return np.concatenate([part for strip in scaled for part in (gap, strip)][1:])


def before_after(episodes: Episodes, row: int) -> np.ndarray:
    """Draw a scene with clean, attacked and defended prompts."""
    states = [episodes.statuses[index][row] for index in (0, len(STEPS), 2 * len(STEPS))]
    titles = ("Clean prompts", "Attacked", "Defended")
    pictures = [
        panel(episodes.simulator, row, status, title, before)
        for title, status, before in zip(titles, states, [None, *states], strict=False)
    ]
    return beside(pictures, 400)


def steps(episodes: Episodes, row: int) -> np.ndarray:
    """Draw an attack and the defence after it, step by step."""
    states = [status[row] for status in episodes.statuses]
    titles = ["Start", *(f"Attack, {n}" for n in STEPS), *(f"Defence, {n}" for n in STEPS)]
    pictures = [
        panel(episodes.simulator, row, status, title, before)
        for title, status, before in zip(titles, states, [None, *states], strict=False)
    ]
    attacked = panel(episodes.simulator, row, states[len(STEPS)], "Attacked")
    return below([beside(pictures[:4], 330), beside([attacked, *pictures[4:]], 330)])


def starts(simulator: Simulator, row: int) -> np.ndarray:
    """Draw four ways to begin: jittered and lattice ideal prompts, feature matching, noise."""
    bank, rng = simulator.bank, np.random.default_rng(SEED)
    truth, peak = bank.truth[row].numpy(), int(bank.peak[row])
    other = (row + 1) % len(bank)
    matched = matching_prompts(
        bank.features[other], patch_coverage(bank.raw(other).mask, GRID), bank.features[row]
    )
    states = {
        "jittered": ideal_prompts(truth, peak, rng),
        "lattice": ideal_prompts(truth, peak, rng, layout="lattice"),
        "matching": matched,
        "noise": noise_prompts(len(truth), rng),
    }
    return beside(
        [panel(simulator, row, torch.from_numpy(status), name) for name, status in states.items()], 330
    )


def graph(simulator: Simulator, row: int) -> np.ndarray:
    """Draw the patches, and one node with its 8 nearest in feature space and in the image."""
    bank = simulator.bank
    raw, node = bank.raw(row), int(bank.peak[row])
    scale = 640 / max(raw.image.shape[:2])
    size = (round(raw.image.shape[1] * scale), round(raw.image.shape[0] * scale))
    picture = cv2.resize(raw.image, size, interpolation=cv2.INTER_CUBIC)
    for line in range(1, GRID):
        x, y = round(line * size[0] / GRID), round(line * size[1] / GRID)
        cv2.line(picture, (x, 0), (x, size[1]), PAPER, 1)
        cv2.line(picture, (0, y), (size[0], y), PAPER, 1)
    index, _ = knn_edges(feature_distance(bank.features[row]), physical_distance(bank.positions))
    at = [(round(float(x) * scale), round(float(y) * scale)) for x, y in bank.points[row]]
    nearest = index[0][index[1] == node].tolist()
    half = len(nearest) // 2
    for neighbours, colour in ((nearest[:half], MASK), (nearest[half:], HIGHLIGHT)):
        for other in neighbours:
            cv2.line(picture, at[node], at[other], INK, 5, SMOOTH)
            cv2.line(picture, at[node], at[other], colour, 3, SMOOTH)
            cv2.circle(picture, at[other], 6, INK, -1, SMOOTH)
            cv2.circle(picture, at[other], 4, colour, -1, SMOOTH)
    cv2.circle(picture, at[node], 10, INK, -1, SMOOTH)
    cv2.circle(picture, at[node], 8, PAPER, -1, SMOOTH)
    return picture


def write(picture: np.ndarray, path: Path) -> None:
    """Write a picture (height, width, 3) uint8 RGB as WebP, aside first and then renamed."""
    done, data = cv2.imencode(".webp", picture[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    if not done:
        raise SystemExit(f"{path} cannot be encoded as WebP.")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    aside.write_bytes(data.tobytes())
    aside.replace(path)
    print(f"{path}  {picture.shape[1]} x {picture.shape[0]}  {len(data) // 1024} KB")


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    out = parser.parse_args().out
    shapes, photos = play_set(SHAPES), play_set(PHOTOS)
    usual = int(np.nanargmin(np.abs(shapes.recovery - np.nanmean(shapes.recovery))))
    best = int(np.nanargmax(photos.recovery))
    for episodes, row in ((shapes, usual), (photos, best)):
        print(f"{episodes.simulator.bank.names[row]}: recovery {episodes.recovery[row]:.2f}")
    write(below([before_after(shapes, usual), before_after(photos, best)]), out / "before_after.webp")
    write(steps(shapes, usual), out / "steps.webp")
    write(starts(shapes.simulator, usual), out / "starts.webp")
    write(graph(photos.simulator, best), out / "graph.webp")


if __name__ == "__main__":
    main()
