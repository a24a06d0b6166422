"""What the machine is, and the most it can do: its matrix products and its memory."""

from __future__ import annotations

import math
import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

import torch

from ppd_agents.speed.clock import Job, timed

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Number formats whose matrix products are measured."""

_FIRST_SIDE = 256
_LONGEST_PRODUCT = 0.5
"""Seconds that one product shall take at most."""

_SHORTEST_TURN = 0.02
"""Seconds of products between two looks at the clock, at least: asking a GPU for one takes time too."""


def machine(device: torch.device) -> dict[str, Any]:
    """Return what a reader must know of this machine to judge its numbers."""
    about: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(_memory() / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": str(device),
    }
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        about["gpu"] = found.name
        about["gpu_memory_gib"] = round(found.total_memory / 2**30, 1)
        about["cuda"] = torch.version.cuda
    return about


def _cpu_model() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def product_jobs(device: torch.device, largest: int) -> dict[str, Job]:
    """Return a job per number format: one product of two square matrices, its unit one operation.

    Processors without units for a format take a hundred times as long, and get smaller matrices.

    Args:
        device: Where they lie.
        largest: Rows and columns at most.

    Returns:
        ``{"product/float32": Job, ...}``: seconds per unit are seconds per floating-point operation.
    """
    jobs = {}
    for name, dtype in DTYPES.items():
        side = min(_FIRST_SIDE, largest)
        seconds = _seconds(device, dtype, side)
        while 2 * side <= largest and 8 * seconds < _LONGEST_PRODUCT:
            side *= 2
            seconds = _seconds(device, dtype, side)
        jobs[f"product/{name}"] = _product(device, dtype, side, math.ceil(_SHORTEST_TURN / seconds))
    return jobs


def _seconds(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Return what one product takes, the asking included: the fastest of three, which nothing interrupted."""
    job = _product(device, dtype, side)
    job.work()
    return min(timed(job, device) for _ in range(3)) * job.units


def _product(device: torch.device, dtype: torch.dtype, side: int, times: int = 1) -> Job:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(side, side, generator=generator).to(device, dtype) for _ in range(2))
    out = torch.empty_like(left)

    def work() -> None:
        for _ in range(times):
            torch.mm(left, right, out=out)

    return Job(work, times * 2 * side**3)


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return the most memory this process has held so far, in bytes: ``host``, and ``device`` on a GPU."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(device)
    return found
