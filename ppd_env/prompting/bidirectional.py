"""Bidirectional matching: one-to-one matches there that lead back into the object."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from ppd_env.game.actions import INACTIVE, POSITIVE
from ppd_env.prompting.pair import References, Target, pooled

ALL_KEPT_UP_TO = 40
"""Of more matches than these the less similar half is dropped, as in Matcher's released code."""


def bidirectional_prompts(
    reference: References, target: Target, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Find positive prompts as Matcher does (Liu et al., ICLR 2024, "Patch-Level Matching").

    The patches the reference mask touches are assigned to target patches one to one, so that their cosine
    similarities have the largest sum; the target patches found are assigned back to all reference patches the
    same way, and those that come back outside the mask are dropped, unless all would be. Of more than
    ``ALL_KEPT_UP_TO`` the less similar half goes.

    Args:
        reference: One reference, or several.
        target: What shall be prompted.
        rng: Not used.

    Returns:
        (N,) int8 status, positive prompts only, at least one.
    """
    pool = pooled(reference)
    likeness = cosine_similarity(pool.features, target.features).cpu().numpy()
    touched = pool.coverage > 0
    here, there = linear_sum_assignment(likeness[touched], maximize=True)
    similarity = likeness[touched][here, there]
    _, back = linear_sum_assignment(likeness[:, there].T, maximize=True)
    returned = touched[back]
    if returned.any():
        there, similarity = there[returned], similarity[returned]
    count = len(there) // 2 if len(there) > ALL_KEPT_UP_TO else len(there)
    status = np.full(len(target.features), INACTIVE, np.int8)
    status[there[np.argsort(-similarity, kind="stable")[:count]]] = POSITIVE
    return status


def cosine_similarity(left: Tensor, right: Tensor) -> Tensor:
    """Return the cosines between (P, d) and (Q, d) float32 as (P, Q) float32 in [-1, 1]."""
    return F.normalize(left, dim=1) @ F.normalize(right, dim=1).T
