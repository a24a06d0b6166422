"""What a removal is worth by suspicion alone: a wrong prompt gone against a right one lost."""

from __future__ import annotations

from torch import Tensor

ENOUGH = 1.0
"""Other right positive prompts that make up for the loss of one. With 2 a little more of random attacks is
taken back, and less of learned ones on photographs (``shapes://val``, ``photos://train``)."""

_FEWEST = 0.1
"""Of fewer than this the formula would make a bottomless loss."""


def removal_worth(logits: Tensor, positive: Tensor, present: Tensor) -> Tensor:
    """Return what the removal of each prompt promises: p - (1 - p) l, where p is its suspicion.

    A wrong prompt that goes counts 1, a right one that is lost l. A negative one is one of many: l = 1. The
    positive ones say what is meant, and the last right one takes the whole mask with it: for them l is the
    larger of 1 and ``ENOUGH`` / r, where r is how many right positive prompts are expected to be left, the
    sum of 1 - p over the others. So where two positive prompts contradict each other, and either may be
    wrong, both stay.

    Args:
        logits: (..., n) float32, of p.
        positive: (..., n) bool, the sign of each prompt.
        present: (..., n) bool, False for what is no prompt (any more).

    Returns:
        (..., n) float32, of use where ``present``: 1 at most, and no less than -``ENOUGH`` / 0.1 = -10, the
        loss of a positive prompt that is surely right and the last one.
    """
    guilt = logits.sigmoid()
    right = (1 - guilt) * (positive & present)
    left = (right.sum(-1, keepdim=True) - right).clamp_min(_FEWEST)
    loss = (ENOUGH / left).clamp_min(1.0).where(positive, 1.0)
    return guilt - (1 - guilt) * loss
