"""Gradients of one update, computed in parts of like cost, side by side on the CPU's cores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor, nn

from ppd_env.cores import on_all_cores
from ppd_env.game.actions import INACTIVE

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Number formats that losses may be computed in."""

_PARTS = 2
"""Parts of a batch on the CPU, however many cores there are: their number decides how sums are rounded."""

_SMALLEST_PART = 8
"""States that a part must hold to be worth its overhead."""

_units: ContextVar[torch.Generator | None] = ContextVar("units", default=None)


@contextmanager
def units_drawn_from(generator: torch.Generator) -> Iterator[None]:
    """Let dropout draw from ``generator`` in this thread, instead of from torch's global one."""
    before = _units.set(generator)
    try:
        yield
    finally:
        _units.reset(before)


class UnitDropout(nn.Module):
    """Leave out hidden units in training, the same ones for all nodes of a state.

    torch's own draws a number for every node and unit, which took as long as the rest of the network, and
    from its global generator alone (``units_drawn_from``).

    Args:
        chance: Of a unit to be left out.
    """

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, hidden: Tensor) -> Tensor:
        """Take and return (B, M, H)."""
        if not self.training or not self.chance:
            return hidden
        kept = hidden.new_empty(len(hidden), 1, hidden.shape[-1])
        kept.bernoulli_(1 - self.chance, generator=_units.get())
        return hidden * (kept / (1 - self.chance))


def parts_of(status: Tensor) -> tuple[Tensor, ...]:
    """Split a batch into states with few and states with many prompts, of about equal cost.

    Prompts are looked at in pairs, and a batch is padded to its largest state: apart from the large ones,
    the small ones cost what they are worth.

    Args:
        status: (B, N) int8.

    Returns:
        Index tensors, together each of the B states once; a single one off the CPU and for small batches.
    """
    counts = (status != INACTIVE).sum(dim=1)
    order = counts.argsort(stable=True)
    if status.device.type != "cpu" or len(order) < _PARTS * _SMALLEST_PART:
        return (order,)
    cost = counts[order].clamp_min(1).square().cumsum(0)
    cuts = torch.searchsorted(cost, cost[-1] * torch.arange(1, _PARTS) / _PARTS)
    ends = cuts.clamp(_SMALLEST_PART, len(order) - _SMALLEST_PART)
    return order.tensor_split(ends)


def set_gradients(
    losses: Sequence[Callable[[], Tensor]],
    parameters: Sequence[nn.Parameter],
    rng: np.random.Generator,
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """Set the gradients of ``parameters`` to those of the sum of several losses.

    On the CPU each loss has a core of its own, which small tensors use better than all cores one tensor; the
    result is the same whatever the number of cores. Elsewhere they take turns: threads that ask one device
    for work get in each other's way.

    Args:
        losses: Each computes a scalar; called once, on the CPU from other threads.
        parameters: What is differentiated by.
        rng: Seeds the dropout of every loss.
        precision: Number format that losses are computed in where torch's autocast trusts it; parameters and
            gradients stay float32.

    Returns:
        The sum, a scalar on the device: asking for its value waits for the device.
    """
    device = parameters[0].device
    seeds = rng.integers(2**62, size=len(losses)).tolist()
    found: dict[int, tuple[Tensor, tuple[Tensor | None, ...]]] = {}

    def differentiate(which: int) -> None:
        lower = nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision)
        with units_drawn_from(torch.Generator(device).manual_seed(seeds[which])), lower:
            loss = losses[which]()
        found[which] = loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True)

    if device.type == "cpu":
        on_all_cores(differentiate, range(len(losses)))
    else:
        for which in range(len(losses)):
            differentiate(which)
    for number, parameter in enumerate(parameters):
        mine = [grads[number] for _, grads in (found[which] for which in range(len(losses)))]
        known = [grad for grad in mine if grad is not None]
        parameter.grad = torch.stack(known).sum(0) if known else None
    return torch.as_tensor(sum(found[which][0] for which in range(len(losses))))
