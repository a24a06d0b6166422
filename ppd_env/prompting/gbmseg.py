"""GBMSeg's prompt engineering: matches that hold both ways, thinned and kept apart in the image.

Published: Liu et al., MICCAI 2024, "Automatic Prompt Engineering"; radii and order are those of the
authors' released code. Same here: forward and backward nearest-neighbour matching of whole patches,
negatives from the farthest matches, exclusive, sparse and hard sampling. Different, and why:

- A match that fails backwards is dropped. The first released code writes -1 over it in an array it goes on
  using, and indexes with that, which gives a point outside the image.
- Nothing takes part twice and a patch carries one sign at a time.
- Where no positive match is left, the most similar forward match stands in; the released code prompts pixel
  (250, 250), and (10, 10) where no negative one is left. Here no negative prompt is made up.
- The published self-matching step is switched off in the released code, and left out here.
- Radii are shares of the image's sides, which the authors' square images make the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE
from ppd_env.graph.distances import pairwise_distance
from ppd_env.prompting.pair import Pool, References, Target, pooled
from ppd_env.scenes.patches import patch_centres

EXCLUSIVE_RADIUS = 0.125
"""A negative prompt must be this far from every positive one, in image sides (70 of 560 pixels)."""

SPARSE_RADIUS = 0.125
"""Prompts of one sign nearer than this form a group, of which one stays."""

HARD_RADIUS = 1 / 560
"""The same for hard negatives: in practice all of them stay."""


def gbmseg_prompts(
    reference: References, target: Target, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Find prompts as GBMSeg does.

    1. Forward: the target patch nearest to each whole foreground patch is a positive candidate, the one
       nearest to each whole background patch a negative one.
    2. Backward: a candidate stays if its own nearest reference patch lies on the side it came from.
    3. Hard negatives: the target patches farthest from each foreground patch, unless their nearest reference
       patch is foreground.
    4. Exclusive sampling: negatives near a positive go, hard ones excepted.
    5. Sparse sampling: of prompts of one sign that crowd together, the one that lies farthest from the other
       sign, on average, stays.

    Args:
        reference: One reference, or several.
        target: What shall be prompted.
        rng: Not used.

    Returns:
        (N,) int8 status, at least one positive prompt.
    """
    pool = pooled(reference)
    distance = pairwise_distance(pool.features, target.features)
    positive, negative, hard = _matched(pool, distance)
    where = patch_centres(target.grid)
    gap = pairwise_distance(where, where).numpy()
    negative = np.union1d(negative, hard)
    hard = _sparse(hard, positive, gap, HARD_RADIUS)
    apart = negative[gap[np.ix_(negative, positive)].min(axis=1) >= EXCLUSIVE_RADIUS]
    kept = _sparse(positive, negative, gap, SPARSE_RADIUS)
    apart = _sparse(apart, kept, gap, SPARSE_RADIUS)
    status = np.full(len(target.features), INACTIVE, np.int8)
    status[apart] = NEGATIVE
    status[hard] = NEGATIVE
    status[kept] = POSITIVE
    return status


def _matched(pool: Pool, distance: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Match both ways.

    Args:
        pool: M reference patches.
        distance: (M, N) float32 between reference and target patches.

    Returns:
        Positive (at least one), negative and hard negative nodes, ascending and disjoint.
    """
    inside, outside = (torch.from_numpy(side).to(distance.device) for side in (pool.inside, pool.outside))
    back = distance.argmin(dim=0)
    from_inside = distance[inside]
    there = from_inside.argmin(dim=1).unique()
    positive = there[inside[back[there]]]
    if not len(positive):
        positive = (from_inside.amin(dim=0).argmin()).reshape(1)
    negative = distance[outside].argmin(dim=1).unique()
    farthest = from_inside.argmax(dim=1).unique()
    negative, hard = negative[outside[back[negative]]], farthest[~inside[back[farthest]]]
    found = (nodes.cpu().numpy() for nodes in (positive, negative, hard))
    positives, negatives, hards = found
    return positives, np.setdiff1d(negatives, positives), np.setdiff1d(hards, positives)


def _sparse(nodes: np.ndarray, others: np.ndarray, gap: np.ndarray, radius: float) -> np.ndarray:
    """Thin prompts: of each one and those not yet grouped within ``radius`` of it, one stays.

    Args:
        nodes: (n,) int64, the prompts of one sign.
        others: (m,) int64, those of the other sign.
        gap: (N, N) float32 between patch centres.
        radius: In image sides.

    Returns:
        The nodes that stay: in every group the one with the largest mean distance to ``others``.
    """
    apart = gap[:, others].mean(axis=1) if len(others) else np.zeros(len(gap), np.float32)
    left, kept = nodes, []
    while len(left):
        near = gap[left[0], left] <= radius
        group = left[near]
        kept.append(group[int(apart[group].argmax())])
        left = left[~near]
    return np.array(kept, np.int64)
