"""PerSAM-F: two weights, fitted on the reference, mix the three scales of SAM's masks.

Published (Zhang et al., ICLR 2024, "Fine-tuning of PerSAM-F"; settings of the released code): on the
reference itself, one positive point where the reference is most like its object; the three ambiguity
masks of that point, mixed with two free weights, a third each at first, and what is missing to 1 for the
first mask; Dice plus focal loss of the mixed logits at the image's own size; 1,000 steps of AdamW on the
two weights, learning rate 1e-3 falling by a cosine. The target gets one positive point, its three masks are
mixed with the same weights, and the mix is refined twice as in PerSAM.

Same here: all of that, where the object's feature is the mean of its mean and its maximum. The three
masks of the reference never change during the fit, so they are decoded once. Nothing is random: the
weights start at a third.

Different, and why: as in ``persam``, no boxes, patch centres, features as given. With several references
their losses are averaged; the paper has one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ppd_agents.methods.contract import (
    OneShotResult,
    SeenReference,
    SeenReferences,
    SeenTarget,
    at_native_size,
    decode,
    native_size,
)
from ppd_agents.methods.persam import cascade
from ppd_env.errors import ConfigError
from ppd_env.prompting.bidirectional import cosine_similarity
from ppd_env.prompting.likeness import object_features
from ppd_env.prompting.pair import each
from ppd_env.scenes.patches import patch_centres
from ppd_env.segmenters.contract import Segmenter, native_logits

STEPS = 1000
KEPT = 64
"""References whose weights are remembered: several in turn, as tables have them, are fitted once each."""

LEARNING_RATE = 1e-3
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0


class PerSamF:
    """PerSAM-F; see above. The weights of the last ``KEPT`` references stay, for as many targets as come.

    Args:
        segmenter: The segmenter.
        steps: Steps of the fit.
        uri: What it was opened from.

    Raises:
        ConfigError: ``steps`` is negative.
    """

    def __init__(self, segmenter: Segmenter, steps: int = STEPS, uri: str = "persam_f") -> None:
        if steps < 0:
            raise ConfigError(f"{uri!r}: steps must be 0 or more, got {steps}.")
        self.uri = uri
        self._segmenter, self._steps = segmenter, steps
        self._fitted: deque[tuple[tuple[SeenReference, ...], Tensor]] = deque(maxlen=KEPT)

    def segment(
        self, reference: SeenReferences, target: SeenTarget, rng: np.random.Generator | None = None
    ) -> OneShotResult:
        """Segment one target; see ``OneShotMethod``. Nothing is drawn."""
        weights = self.weights(reference)
        points, labels = _best_point(_mean_and_maximum(reference), target.features, target.size)
        logits, _ = decode(self._segmenter, target.embedding, points, labels, multimask=True)
        mixed = (weights[:, None, None] * logits).sum(dim=0)
        refined = cascade(self._segmenter, target.embedding, points, labels, mixed)
        return OneShotResult(at_native_size(self._segmenter, refined, target.size), points, labels)

    def weights(self, reference: SeenReferences) -> Tensor:
        """Return the weights of the ambiguity masks, fitted on the references, (3,) float32, sum 1."""
        references = each(reference)
        known = next((weights for seen, weights in self._fitted if _same(seen, references)), None)
        if known is None:
            known = self._fit(references)
            self._fitted.append((references, known))
        return known

    def _fit(self, references: tuple[SeenReference, ...]) -> Tensor:
        features = _mean_and_maximum(references)
        pairs = []
        for one in references:
            size = native_size(one.embedding)
            points, labels = _best_point(features, one.features, size)
            logits, _ = decode(self._segmenter, one.embedding, points, labels, multimask=True)
            truth = torch.from_numpy(np.ascontiguousarray(one.mask)).to(logits)
            pairs.append((native_logits(self._segmenter, logits, size).flatten(1), truth.flatten()))
        return fit_weights(pairs, self._steps)


@torch.enable_grad()
def fit_weights(pairs: Sequence[tuple[Tensor, Tensor]], steps: int = STEPS) -> Tensor:
    """Find the weights with which masks of several scales best make up a known mask.

    Args:
        pairs: Logits (m, P) float32 of the m scales and the truth (P,) float32, 0 or 1, of each reference.
        steps: Steps of AdamW.

    Returns:
        (m,) float32, on the device of the logits, sum 1.
    """
    scales = len(pairs[0][0])
    free = torch.full((scales - 1,), 1 / scales, device=pairs[0][0].device, requires_grad=True)
    optimizer = torch.optim.AdamW([free], lr=LEARNING_RATE, eps=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    for _ in tqdm(range(steps), desc="PerSAM-F", leave=False, delay=2):
        weights = _all(free)
        loss = torch.stack([dice_plus_focal(weights @ logits, truth) for logits, truth in pairs]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return _all(free).detach()


def _all(free: Tensor) -> Tensor:
    """Put the first weight, what is missing to 1, before the others."""
    return torch.cat([1 - free.sum(dim=0, keepdim=True), free])


def dice_plus_focal(logits: Tensor, truth: Tensor) -> Tensor:
    """Return Dice loss plus the mean focal loss (Lin et al., ICCV 2017), a scalar.

    Args:
        logits: (P,) float32.
        truth: (P,) float32, 0 or 1.
    """
    share = logits.sigmoid()
    dice = 1 - (2 * (share * truth).sum() + 1) / (share.sum() + truth.sum() + 1)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    missed = share * (1 - truth) + (1 - share) * truth
    balance = FOCAL_ALPHA * truth + (1 - FOCAL_ALPHA) * (1 - truth)
    return dice + (balance * missed**FOCAL_GAMMA * entropy).mean()


def _mean_and_maximum(reference: SeenReferences) -> Tensor:
    """Return the mean of the object's mean and its largest feature values, (1, d) float32."""
    found = object_features(reference)
    return ((found.mean(dim=0) + found.amax(dim=0)) / 2)[None]


def _best_point(looks: Tensor, features: Tensor, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre of the patch most like ``looks`` (1, d) as a positive prompt of an image."""
    node = int(cosine_similarity(features, looks)[:, 0].argmax())
    centre = patch_centres(round(len(features) ** 0.5))[node].numpy()
    point = (centre * np.array([size[1], size[0]], np.float32))[None]
    return point, np.ones(1, np.int64)


def _same(left: Sequence[SeenReference], right: Sequence[SeenReference]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))
