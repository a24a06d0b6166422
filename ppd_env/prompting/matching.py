"""One-shot feature matching: prompts for a target image from one reference image with its mask.

PPD (Section IV) takes its coarse prompts from feature matching without giving the rules; these are the
rules of the same authors' released code for its predecessor (Liu et al., CVPR 2025). Five things in that
code change results for no reason and are not followed:

- The last row and column of patches take no part (39 x 39 of 40 x 40). Here every patch does.
- The reference mask is scaled to the features' size with interpolation, and every grey value then counts as
  foreground, so the object grows by a rim. Here the native mask decides how much of a patch is covered.
- An object smaller than every patch gives no positive prompt. Here the most covered patch stands in.
- An image that gets no positive or no negative prompt is left out of the averages. Here it keeps the prompts
  it has, and one without any has an empty mask.
- Images are read in one channel order and shown to SAM in another. Here everything is RGB.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE
from ppd_env.graph.distances import pairwise_distance
from ppd_env.prompting.coverage import whole_patches
from ppd_env.prompting.pair import Pool, References, Target, pooled


def matching_prompts(reference: Tensor, coverage: np.ndarray, target: Tensor) -> np.ndarray:
    """Give each reference patch's sign to the target patch nearest in feature space.

    Patches wholly inside the reference mask vote positive, wholly outside negative, the others not at all;
    target patches that receive both signs get none (the matching step of PPD's experiments, Section IV).
    Where no patch lies wholly inside the mask, the most covered one votes positive.

    Args:
        reference: (N, d) float32, features of the reference image.
        coverage: (N,) float32 in [0, 1], share of each reference patch that its mask covers.
        target: (N, d) float32, features of the target image.

    Returns:
        (N,) int8 status; it may hold no prompt at all where every match is contested.
    """
    return _vote(Pool(reference, coverage, *whole_patches(coverage)), target)


def feature_matching(
    reference: References, target: Target, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Match a target with one or several references, whose patches vote together; see ``matching_prompts``.

    Args:
        reference: One reference, or several.
        target: What shall be prompted.
        rng: Not used.

    Returns:
        (N,) int8 status.
    """
    return _vote(pooled(reference), target.features)


def _vote(pool: Pool, target: Tensor) -> np.ndarray:
    nearest = pairwise_distance(pool.features, target).argmin(dim=1).cpu().numpy()
    positive, negative = np.zeros(len(target), bool), np.zeros(len(target), bool)
    positive[nearest[pool.inside]] = True
    negative[nearest[pool.outside]] = True
    status = np.full(len(target), INACTIVE, np.int8)
    status[positive & ~negative] = POSITIVE
    status[negative & ~positive] = NEGATIVE
    return status
