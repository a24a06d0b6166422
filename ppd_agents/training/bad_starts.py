"""Beginnings whose wrong prompts nobody chose to do harm: random ones, and those of feature matching."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE, encode
from ppd_env.prompting.matching import matching_prompts
from ppd_env.prompting.noise import noise_prompts
from ppd_env.scenes.bank import SceneBank
from ppd_env.simulator import Simulator

KINDS = ("noise", "matching")

MOST_PROMPTS = 64
"""Prompts of a beginning: what it costs to learn from a state grows with the square of its prompts, and
matching alone gives a hundred."""

_BLUR = (0.3, 1.5)
"""Bounds of the noise on the features of a reference, in standard deviations of the scene's own."""


def bad_starts(
    simulator: Simulator, rows: Tensor, kinds: np.ndarray, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Draw beginnings without an attacker.

    ``"noise"`` are random prompts. ``"matching"`` matches a scene with a blurred memory of itself, since
    training scenes have no classes to take a reference from: it errs where things look alike. Of either at
    most ``MOST_PROMPTS`` are kept, drawn at random.

    Args:
        simulator: The scenes.
        rows: (B,) int64.
        kinds: (B,) of ``KINDS``.
        rng: Draws everything.

    Returns:
        status: (B, N) int8.
        right: (B, N) int8, those of the prompts whose sign is the true one.
    """
    bank, drawn = simulator.bank, []
    inside = torch.where(bank.target[rows], 1.0, -1.0)
    coverage = simulator.feedback(rows, inside).cpu().numpy()
    for row, kind, share in zip(rows.tolist(), kinds, coverage, strict=True):
        if kind == "noise":
            prompts = noise_prompts(bank.features.shape[1], rng)
        else:
            prompts = matching_prompts(_blurred(bank, row, rng), share, bank.features[row])
        drawn.append(_thinned(prompts, rng))
    status = torch.from_numpy(np.stack(drawn)).to(bank.device)
    truth = bank.truth[rows]
    agrees = torch.where(truth, status == POSITIVE, status == NEGATIVE)
    return status, torch.where(agrees, status, INACTIVE)


def _thinned(status: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep ``MOST_PROMPTS`` of the prompts (N,), one of them positive where one was."""
    drawn = rng.permutation(np.flatnonzero(status != INACTIVE))
    positive = drawn[status[drawn] == POSITIVE][:1]
    kept = np.concatenate([positive, np.setdiff1d(drawn, positive, assume_unique=True)])[:MOST_PROMPTS]
    thinned = np.full_like(status, INACTIVE)
    thinned[kept] = status[kept]
    return thinned


def _blurred(bank: SceneBank, row: int, rng: np.random.Generator) -> Tensor:
    """Return the features of a scene with noise on them, (N, d) float32."""
    features = bank.features[row]
    noise = torch.from_numpy(rng.standard_normal(tuple(features.shape), dtype=np.float32)).to(features.device)
    return features + rng.uniform(*_BLUR) * features.std(dim=0) * noise


def as_attack(status: Tensor, right: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the wrong prompts in random order, as if an attacker had added them one by one.

    Args:
        status: (B, N) int8.
        right: (B, N) int8, its right prompts.
        rng: Draws the order.

    Returns:
        (B, W) int64 actions for at most W wrong prompts; -1 where a state has no more of them.
    """
    keys = torch.from_numpy(rng.random(tuple(status.shape), dtype=np.float32)).to(status.device)
    wrong = (status != INACTIVE) & (status != right)
    most = int(wrong.sum(dim=1).max())
    nodes = keys.masked_fill(~wrong, 2.0).argsort(dim=1)[:, :most]
    actions = encode(status.gather(1, nodes), nodes, status.shape[1])
    return torch.where(wrong.gather(1, nodes), actions, -1)
