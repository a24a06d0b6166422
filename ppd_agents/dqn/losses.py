"""What a difference between a value and its target costs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from ppd_env.errors import ConfigError

LOSSES = ("huber", "mse")


@dataclass(frozen=True)
class Loss:
    """The loss of a batch of values.

    Args:
        kind: ``"huber"``: half the square up to ``delta``, linear beyond; ``"mse"``: the square.
        delta: Where the Huber loss turns linear, in units of the scaled rewards.

    Raises:
        ConfigError: The kind is unknown, or delta is not positive.
    """

    kind: str = "huber"
    delta: float = 1.0

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.kind not in LOSSES:
            raise ConfigError(f"loss must be one of {', '.join(LOSSES)}, got {self.kind!r}.")
        if not self.delta > 0:
            raise ConfigError(f"huber_delta must be above 0, got {self.delta}.")

    def __call__(self, found: Tensor, wanted: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the mean loss of values (..., B, 1) against targets of that shape, weighted by (B, 1)."""
        if self.kind == "huber":
            each = F.huber_loss(found, wanted, reduction="none", delta=self.delta)
        else:
            each = F.mse_loss(found, wanted, reduction="none")
        return each.mean() if weights is None else (weights * each).mean()
