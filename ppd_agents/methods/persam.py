"""PerSAM: a location prior of two points, and a mask that is refined twice.

Published (Zhang et al., ICLR 2024, "Training-free PerSAM"): the reference object's mean feature gives a
similarity map of the target; its maximum is a positive and its minimum a negative point; the map also
guides the decoder's attention and the mean feature is added to its tokens; a first mask is decoded, then
refined with itself as mask prompt, then with its bounding box as well, each time the best of three masks
by predicted IoU.

Same here: the two points, the first single mask, two refinements by mask prompt, the choice by predicted IoU.

Different, and why:

- Target-guided attention and target-semantic prompting change what happens inside SAM's decoder, which no
  segmenter-neutral contract offers: left out.
- The contract knows points and masks, no boxes: the second refinement has none.
- Features are those the references and the target come with: with ``segmenter:...`` they are SAM's own, as
  published. Points are patch centres.
- An empty mask stays empty; the released code stops with an error, as it looks for the box of no pixels.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ppd_agents.methods.contract import (
    OneShotResult,
    SeenReferences,
    SeenTarget,
    at_native_size,
    decode,
)
from ppd_env.prompting.likeness import persam_prompts
from ppd_env.prompting.pair import as_points
from ppd_env.segmenters.contract import Embedding, Segmenter

REFINEMENTS = 2


class PerSam:
    """PerSAM without training, as far as points and mask prompts reach; see above.

    Args:
        segmenter: The segmenter.
    """

    uri = "persam"

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    def segment(
        self, reference: SeenReferences, target: SeenTarget, rng: np.random.Generator | None = None
    ) -> OneShotResult:
        """Segment one target; see ``OneShotMethod``. Nothing is drawn."""
        points, labels = as_points(persam_prompts(reference, target), target.size)
        logits, _ = decode(self._segmenter, target.embedding, points, labels)
        refined = cascade(self._segmenter, target.embedding, points, labels, logits[0])
        return OneShotResult(at_native_size(self._segmenter, refined, target.size), points, labels)


def cascade(
    segmenter: Segmenter, embedding: Embedding, points: np.ndarray, labels: np.ndarray, mask: Tensor
) -> Tensor:
    """Refine a mask ``REFINEMENTS`` times with itself as mask prompt, by predicted IoU the best of three.

    Args:
        segmenter: The segmenter.
        embedding: Of one image.
        points: (n, 2) float32 pixels (x, y).
        labels: (n,) int64.
        mask: (h, w) float32, low-resolution logits.

    Returns:
        (h, w) float32, low-resolution logits.
    """
    for _ in range(REFINEMENTS):
        logits, iou = decode(segmenter, embedding, points, labels, mask=mask, multimask=True)
        mask = logits[int(iou.argmax())]
    return mask
