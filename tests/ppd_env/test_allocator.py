"""Freed memory is kept: the second pass over large blocks asks the system for no new pages."""

import os
import subprocess
import sys

import pytest

_SMALL_PAGES = 41  # PR_SET_THP_DISABLE: a huge page would be one fault instead of 512

_PROGRAM = f"""
import ctypes, resource, sys
ctypes.CDLL(None).prctl({_SMALL_PAGES}, 1, 0, 0, 0)
from ppd_env.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def touch():
    blocks = [bytearray(8 << 20) for _ in range(4)]
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    """Count them with nothing else set that bears on them."""
    plain = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES" and not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True, env=plain
    )
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_freed_blocks_are_used_again():
    assert page_faults("keep") < 1000 < page_faults("leave")
