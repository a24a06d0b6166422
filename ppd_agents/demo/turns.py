"""One job at a time in a thread of its own, first come, first served: visitors wait for single steps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from ppd_env.errors import PPDError

P = ParamSpec("P")
T = TypeVar("T")


class BusyError(PPDError):
    """Too many jobs wait already."""


class Turns:
    """A queue of jobs; everything that computes goes through it, so that the server answers meanwhile.

    Args:
        name: Of the thread.
        longest: Jobs that may wait.
    """

    def __init__(self, name: str, longest: int = 64) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._longest, self._waiting = longest, 0

    async def take(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do a job when its turn comes.

        Raises:
            BusyError: Too many others wait.
        """
        if self._waiting >= self._longest:
            raise BusyError("Too many people use this server right now: try again in a moment.")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, lambda: job(*args, **kwargs))
        finally:
            self._waiting -= 1
