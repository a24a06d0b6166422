"""PerSAM's location prior: the patches most and least like the mean of the object."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE
from ppd_env.prompting.bidirectional import cosine_similarity
from ppd_env.prompting.pair import References, Target, each, grid_of
from ppd_env.scenes.patches import nodes_inside


def object_features(reference: References) -> Tensor:
    """Return the features of the patches whose centre lies in a reference mask, (m, d) float32.

    A reference whose object lies between all patch centres gives its most covered patches.
    """
    found = []
    for one in each(reference):
        chosen = nodes_inside(one.mask, grid_of(len(one.features)))
        if not chosen.any():
            chosen = one.coverage == one.coverage.max()
        found.append(one.features[torch.from_numpy(chosen).to(one.features.device)])
    return torch.cat(found)


def mean_likeness(reference: References, target: Target) -> Tensor:
    """Return the cosine of every target patch with the object's mean feature, (N,) float32 in [-1, 1]."""
    return cosine_similarity(target.features, object_features(reference).mean(dim=0, keepdim=True))[:, 0]


def persam_prompts(
    reference: References, target: Target, rng: np.random.Generator | None = None
) -> np.ndarray:
    """Prompt the patch most like the object positively, and the one least like it negatively.

    The positive-negative location prior of PerSAM (Zhang et al., ICLR 2024). There the similarity
    map of SAM's own embedding is enlarged to the image before its extremes are taken; here points
    are patch centres, and the features are whichever were given.

    Args:
        reference: One reference, or several, whose object patches are averaged together.
        target: What shall be prompted.
        rng: Not used.

    Returns:
        (N,) int8 status: one positive prompt and, unless all patches are equally like the object, one
        negative.
    """
    likeness = mean_likeness(reference, target)
    status = np.full(len(likeness), INACTIVE, np.int8)
    status[int(likeness.argmin())] = NEGATIVE
    status[int(likeness.argmax())] = POSITIVE
    return status
