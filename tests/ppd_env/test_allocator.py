"""Freed memory is kept: the second pass over large blocks asks the system for no new pages."""

import subprocess
import sys

import pytest

_PROGRAM = """
import resource, sys
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
    done = subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_freed_blocks_are_used_again():
    assert page_faults("keep") < 1000 < page_faults("leave")
