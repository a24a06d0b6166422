"""Pieces of work side by side, one per core of the CPU; a forked process works on one core."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Barrier, Lock
from typing import ParamSpec, TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")
Given = ParamSpec("Given")

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_making = Lock()


def on_all_cores(work: Callable[[Piece], None], pieces: Sequence[Piece]) -> None:
    """Do ``work`` on every piece, as many at once as torch has threads.

    The tensors of a small network are too small to share: two cores that each decode a batch of their own are
    faster than two that work on one batch together and wait for each other after every operation.

    Args:
        work: Called once per piece, in any order and from other threads, where torch uses one core. Modes
            such as ``no_grad`` do not reach it, but for ``inference_mode``, whose tensors may be written to
            in no other. What it raises is raised here.
        pieces: With a single one, it is called here, with all cores.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(pieces) <= 1:
        for piece in pieces:
            work(piece)
        return
    inferring = torch.is_inference_mode_enabled()

    def in_same_mode(piece: Piece) -> None:
        with torch.inference_mode(inferring):
            work(piece)

    under_way = [_pool(threads).submit(in_same_mode, piece) for piece in pieces]
    wait(under_way)  # before anything is raised: what goes on would still write into the caller's tensors
    for one in under_way:
        one.result()


def in_background(work: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Future[Result]:
    """Do ``work`` on one core while the caller goes on; such pieces are done one after another.

    Args:
        work: Called in a thread of its own. Modes such as ``no_grad`` do not reach it.
        *args: For ``work``.
        **kwargs: For ``work``.

    Returns:
        What will hold its result.
    """
    return _pool(1).submit(work, *args, **kwargs)


def _pool(threads: int) -> ThreadPoolExecutor:
    """Return this process's pool; threads do not survive a fork, and a child may take more cores again."""
    key = (os.getpid(), threads)
    with _making:
        if key not in _pools:
            before = torch.get_num_threads()
            pool = ThreadPoolExecutor(threads, "ppd-core", initializer=_take_one_core)
            all_begun = Barrier(threads + 1)
            for _ in range(threads):
                pool.submit(all_begun.wait)
            all_begun.wait()
            # A thread that limits itself also sets what threads begun later get: set the old number again.
            torch.set_num_threads(before)
            _pools[key] = pool
        return _pools[key]


def _stay_on_one_core() -> None:
    """Let a forked process compute without the threads it did not inherit.

    GNU OpenMP still believes in them and waits for them in the first operation that would be shared.
    """
    global _making
    _making = Lock()  # another thread of the parent may have held it
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # systems without fork lack it
    os.register_at_fork(after_in_child=_stay_on_one_core)


def _take_one_core() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # torch settles the number of a thread when it is first asked for
