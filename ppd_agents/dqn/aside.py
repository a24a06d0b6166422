"""Work beside the caller's: in a thread of its own, and on a GPU on a stream of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

import torch

from ppd_env.cores import in_background

Result = TypeVar("Result")


class Aside(Generic[Result]):
    """One piece of work at a time, while its caller goes on.

    On a GPU it begins behind what the caller has asked of the device so far, and what the caller asks of it
    after ``finish`` begins behind the work. Tensors handed over must be held until then.

    Args:
        device: Where the work computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._under_way: Future[Result] | None = None

    @property
    def busy(self) -> bool:
        """Whether something was begun and not finished."""
        return self._under_way is not None

    def start(self, work: Callable[[], Result]) -> None:
        """Begin a piece of work; the last one must be finished."""
        assert not self.busy
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        self._under_way = in_background(self._on_stream, work)

    def _on_stream(self, work: Callable[[], Result]) -> Result:
        with torch.cuda.stream(self._stream):  # of no effect for None
            return work()

    def finish(self) -> Result | None:
        """Wait for the work and return its result, None where there was none, or raise what it raised."""
        under_way, self._under_way = self._under_way, None
        if under_way is None:
            return None
        try:
            return under_way.result()
        finally:
            if self._stream is not None:
                torch.cuda.current_stream(self._device).wait_stream(self._stream)
