"""What the values and the suspicions of a Q-network cost where they are wrong."""

from __future__ import annotations

from dataclasses import dataclass

from stable_baselines3.common.type_aliases import DictReplayBufferSamples
from torch import Tensor
from torch.nn import functional as F

from ppd_agents.dqn.policy import ObservationQNet
from ppd_agents.dqn.replay import SceneSamples
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


def value_loss(
    q_net: ObservationQNet,
    loss: Loss,
    data: SceneSamples | DictReplayBufferSamples,
    target: Tensor,
    current: Tensor,
    which: Tensor,
) -> Tensor:
    """Return what a part of a batch adds to the mean loss of its values.

    Args:
        q_net: What is learned; every member for itself.
        loss: Of a value against its target.
        data: B transitions, weighted where their memory says so.
        target: (B, 1) float32.
        current: (B, 1) float32, filled for this part with the values of Dice found.
        which: (b,) int64, the part.
    """
    weights = data.weights if isinstance(data, SceneSamples) else None
    seen = {name: values[which] for name, values in data.observations.items()}
    found = q_net.q_of(seen, data.actions[which].long(), dice_only=True, each=True).float()
    current[which] = found.detach().mean(0)
    mean = loss(found, target[which].expand_as(found), None if weights is None else weights[which])
    return mean * (len(which) / len(target))


def suspicion_loss(
    q_net: ObservationQNet, rows: Tensor, status: Tensor, foreign: Tensor, prompts: int, which: Tensor
) -> Tensor:
    """Return what a part of a batch adds to the mean cross-entropy of telling the attacks' prompts.

    Args:
        q_net: What is learned; every member for itself.
        rows: (B,) int64, the scenes.
        status: (B, N) int8, the prompts after an attack.
        foreign: (B, N) bool, those that came from it.
        prompts: Active nodes in ``status``.
        which: (b,) int64, the part.
    """
    logits, active = q_net.suspicions({"scene": rows[which], "status": status[which]})
    logits = logits[:, active.present].float()
    known = foreign[which].gather(1, active.nodes)[active.present].to(logits.dtype)
    total = F.binary_cross_entropy_with_logits(logits, known.expand_as(logits), reduction="sum")
    return total / (prompts * len(logits))
