"""How the C library treats freed memory; decoding on the CPU spends a third of its time there."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's malloc.h
_WHOLE_HEAP = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed blocks of any size for the next request of this process.

    Every decode makes and frees tensors of several megabytes. By default such blocks go back to the system,
    and the next step pays for fresh, zeroed pages. With this, ``mini`` decodes batches of 64 about 1.5 times
    as fast; the process keeps the largest amount of memory it ever used. The command line calls it; programs
    that step many games on the CPU may do so too, once, before the first step.

    Returns:
        Whether the C library is glibc and took the settings; elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _WHOLE_HEAP), (_TOP_PAD, 64 * 2**20))
    taken = [mallopt(key, value) for key, value in settings]
    return all(taken)
