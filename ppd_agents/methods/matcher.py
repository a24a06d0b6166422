"""Matcher: many small prompt sets from matched points; the masks most like the reference are merged.

Published (Liu et al., ICLR 2024, "Prompts Generation" and "Controllable Masks Generation"; settings of
the released code for single objects, FSS-1000): bidirectional matching of patches; the matched points are
clustered by k-means++ into 8 centres; all subsets of 4 to 6 centres prompt SAM for a single mask each;
every mask is scored by alpha (1 - EMD) + beta purity coverage^lambda with alpha, beta, lambda = 0.8, 0.2,
1: EMD between the reference object's and the mask's features, purity the matched points in the mask per
patch of it, coverage the share of the points that lie in it; of the ten best masks those scoring above
0.7 of the best are merged.

Same here: all of that.

Different, and why:

- EMD carries a little entropy, so that all masks are measured at once; see ``transport``.
- Points in masks and patches of masks are counted on the segmenter's low-resolution masks.
- Empty masks take no part; if all are, the result is empty.
- The paper samples prompts within clusters, among all points and among centres; the released settings
  use the centres alone, and so does this.
- k-means++ draws from the caller's generator; the released code draws from global ones.
- The released COCO settings also filter by purity and by SAM's stability and box suppression; those of
  FSS-1000 do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ppd_agents.methods.contract import (
    OneShotResult,
    SeenReferences,
    SeenTarget,
    at_native_size,
    native_size,
)
from ppd_agents.methods.transport import earth_movers_distance
from ppd_env.prompting.bidirectional import bidirectional_prompts, cosine_similarity
from ppd_env.prompting.pair import as_points, drawing, pooled
from ppd_env.segmenters.contract import ABSENT, Embedding, Segmenter
from ppd_env.segmenters.letterbox import points_to_square, scaled_size

CENTRES = 8
SMALLEST, LARGEST = 4, 6
ALPHA, BETA, EXPONENT = 0.8, 0.2, 1.0
MERGED = 10
LEAST_SHARE = 0.7
_DECODED_AT_ONCE = 64
_KMEANS_ROUNDS = 100


@dataclass(frozen=True, eq=False)
class Proposals:
    """Masks that may be merged, none of them empty.

    Args:
        logits: (B, h, w) float32, low-resolution.
        patches: (B, N) bool, the patches each mask touches.
        hits: (B,) int64, how many of the matched points lie in each mask.
    """

    logits: Tensor
    patches: Tensor
    hits: Tensor


class Matcher:
    """Matcher with the published settings for single objects; see above.

    Args:
        segmenter: The segmenter.
    """

    uri = "matcher"

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    def segment(
        self, reference: SeenReferences, target: SeenTarget, rng: np.random.Generator | None = None
    ) -> OneShotResult:
        """Segment one target; see ``OneShotMethod``. The clustering draws from ``rng``."""
        points, _ = as_points(bidirectional_prompts(reference, target), target.size)
        centres = cluster(points, CENTRES, drawing(rng, self.uri))
        proposals = self._propose(target, subsets(centres), points)
        labels = np.ones(len(centres), np.int64)
        if not len(proposals.logits):
            return OneShotResult(np.zeros(target.size, bool), centres, labels)
        scores = score(reference, target, proposals, len(points))
        chosen = scores.topk(min(MERGED, len(scores)))
        merged = chosen.indices[chosen.values > LEAST_SHARE * chosen.values[0]]
        masks = at_native_size(
            self._segmenter, proposals.logits[merged.to(proposals.logits.device)], target.size
        )
        return OneShotResult(np.logical_or.reduce(masks), centres, labels)

    @torch.no_grad()
    def _propose(self, target: SeenTarget, sets: list[np.ndarray], matched: np.ndarray) -> Proposals:
        """Decode every subset of points and look where its mask lies."""
        device = self._segmenter.device
        found = []
        for start in range(0, len(sets), _DECODED_AT_ONCE):
            some = [torch.from_numpy(one) for one in sets[start : start + _DECODED_AT_ONCE]]
            points = pad_sequence(some, batch_first=True).to(device)
            labels = [torch.ones(len(one), dtype=torch.int64) for one in some]
            signs = pad_sequence(labels, batch_first=True, padding_value=ABSENT).to(device)
            rows = torch.zeros(len(some), dtype=torch.int64, device=device)
            logits, _ = self._segmenter.decode(target.embedding, points, signs, rows=rows)
            found.append(logits[:, 0])
        return propose(torch.cat(found), target.embedding, target.grid, matched)


def propose(logits: Tensor, embedding: Embedding, grid: int, matched: np.ndarray) -> Proposals:
    """Find out where masks lie, and leave out the empty ones.

    Args:
        logits: (B, h, h) float32, low-resolution.
        embedding: Of the one image.
        grid: Patches per side.
        matched: (n, 2) float32 pixels (x, y).
    """
    size = native_size(embedding)
    height, width = scaled_size(*size, logits.shape[-1])
    inside = logits[:, :height, :width] > 0
    logits, inside = logits[inside.any(dim=(1, 2))], inside[inside.any(dim=(1, 2))]
    patches = F.adaptive_max_pool2d(inside.float()[:, None], grid).flatten(1) > 0
    square = points_to_square(torch.from_numpy(matched)[None], embedding.sizes.cpu())[0]
    column, row = (square * logits.shape[-1]).long().T.to(logits.device)
    hits = inside[:, row.clamp(max=height - 1), column.clamp(max=width - 1)].sum(dim=1)
    return Proposals(logits, patches, hits)


def score(reference: SeenReferences, target: SeenTarget, proposals: Proposals, matched: int) -> Tensor:
    """Rate masks by how much they look like the references' objects and by the matched points in them.

    Args:
        reference: One reference, or several.
        target: The target.
        proposals: B masks.
        matched: Number of matched points.

    Returns:
        (B,) float32, larger is better (Matcher, "Instance-Level Matching").
    """
    pool = pooled(reference)
    touched = torch.from_numpy(pool.coverage > 0).to(pool.features.device)
    cost = (1 - cosine_similarity(pool.features[touched], target.features)) / 2
    patches, hits = proposals.patches.to(cost.device), proposals.hits.to(cost.device)
    purity = hits / patches.sum(dim=1)
    coverage = hits / matched
    return ALPHA * (1 - earth_movers_distance(cost, patches)) + BETA * purity * coverage**EXPONENT


def subsets(points: np.ndarray) -> list[np.ndarray]:
    """Return all subsets (k, 2) of n <= ``CENTRES`` points with ``SMALLEST`` to ``LARGEST`` of them.

    Fewer points than ``SMALLEST`` make one set.
    """
    sizes = sorted({min(size, len(points)) for size in range(SMALLEST, LARGEST + 1)})
    return [points[list(chosen)] for size in sizes for chosen in combinations(range(len(points)), size)]


def cluster(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Find the centres of clusters by k-means++ (Arthur and Vassilvitskii, 2007).

    Args:
        points: (n, 2) float32, all different.
        count: Clusters; fewer points are their own centres.
        rng: Draws the first centres.

    Returns:
        (k, 2) float32, k = min(count, n).
    """
    if len(points) <= count:
        return points
    centres = points[rng.integers(len(points))][None]
    for _ in range(count - 1):
        nearest = _squared(points, centres).min(axis=1)
        centres = np.concatenate([centres, points[rng.choice(len(points), p=nearest / nearest.sum())][None]])
    for _ in range(_KMEANS_ROUNDS):
        member = _squared(points, centres).argmin(axis=1)
        own = [points[member == k] for k in range(count)]
        moved = np.stack([o.mean(axis=0) if len(o) else c for o, c in zip(own, centres, strict=True)])
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres.astype(np.float32)


def _squared(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return squared distances (n, k) float64."""
    gaps = points[:, None].astype(np.float64) - centres[None]
    squared: np.ndarray = (gaps**2).sum(axis=2)
    return squared
