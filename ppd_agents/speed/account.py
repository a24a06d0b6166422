"""Where the decoder's time goes, line by line, beside what its products would take at the limit.

Times are those of the thread on its core, so that other programs on the machine count little.
"""

from __future__ import annotations

import linecache
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import addmm_flop, flop_registry, sdpa_flop_count

from ppd_agents.speed.machine import DTYPES, product_jobs
from ppd_env.errors import ConfigError
from ppd_env.segmenters.sam import decoder as decoder_module
from ppd_env.segmenters.sam.config import DecoderConfig
from ppd_env.segmenters.sam.decoder import MaskDecoder
from ppd_env.segmenters.sam.options import cpu_has_bfloat16

CPU = torch.device("cpu")
_SOURCE = decoder_module.__file__

SMALL = 0.01
"""Share of the decode below which a line is not shown by itself."""

Place = tuple[str, str]
"""A method of the decoder and the source of one of its lines."""


@dataclass
class Spent:
    """What the operations below one line took: seconds, and floating-point operations of its products."""

    seconds: float = 0.0
    flops: int = 0


@dataclass
class _LineClock(TorchDispatchMode):
    """Times every operation of torch and books it on the decoder's line that asked for it."""

    spent: dict[Place, Spent] = field(default_factory=lambda: defaultdict(Spent))
    own: float = 0.0
    """Seconds it took itself."""

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        began = time.thread_time()
        out = func(*args, **(kwargs or {}))
        ended = time.thread_time()
        entry = self.spent[_place(sys._getframe(1))]
        entry.seconds += ended - began
        entry.flops += _flops(func._overloadpacket, args, kwargs or {}, out)
        self.own += time.thread_time() - ended
        return out


def _place(frame: FrameType | None) -> Place:
    """Return the innermost line of a method of the decoder itself."""
    while frame is not None:
        code = frame.f_code
        if code.co_filename == _SOURCE and code.co_varnames[:1] == ("self",):
            return code.co_name, linecache.getline(_SOURCE, frame.f_lineno).strip()
        frame = frame.f_back
    return "", ""


def _flops(packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> int:
    aten = torch.ops.aten
    if packet is aten._scaled_dot_product_flash_attention_for_cpu:  # unknown to torch's counter
        return int(sdpa_flop_count(*(given.shape for given in args[:3])))
    if packet is aten.addmm_:
        return int(addmm_flop(*args, **kwargs, out_val=out))
    count = flop_registry.get(packet)
    return int(count(*args, **kwargs, out_val=out)) if count else 0


@contextmanager
def _one_core() -> Iterator[None]:
    """Let torch compute as each core does that decodes prompt sets of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _seconds(work: Callable[[], object]) -> float:
    """Return the time of this thread that a piece of work takes."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def random_decode(dtype: str, points: int, config: DecoderConfig) -> tuple[MaskDecoder, Callable[[], object]]:
    """Return a decoder with random weights, and a decode of one prompt set whose scene is known."""
    generator = torch.Generator().manual_seed(0)
    decoder = MaskDecoder(config).eval().requires_grad_(False)
    for parameter in decoder.parameters():
        parameter.normal_(std=0.05, generator=generator)
    decoder.freeze(DTYPES[dtype])
    image = torch.randn(1, config.dim, config.cells, config.cells, generator=generator)
    constants = decoder.constants({decoder.image_name: image})
    where = torch.rand(1, points, 2, generator=generator)
    labels = torch.arange(points)[None] % 2

    def decode() -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = decoder(constants, where, labels)
        return found

    return decoder, decode


@torch.no_grad()
def decoder_account(
    dtype: str = "float32",
    points: int = 40,
    rounds: int = 15,
    largest: int = 2048,
    config: DecoderConfig | None = None,
) -> dict[str, Any]:
    """Measure a decode of one prompt set on one core of the CPU, as each core does while a batch is decoded.

    Args:
        dtype: ``"float32"`` or ``"bfloat16"``.
        points: Prompts of the set.
        rounds: Repeats, of which the one of median time counts.
        largest: Side of the matrices whose product is the limit, at most.
        config: Sizes; those of every published SAM where None.

    Returns:
        ``{"dtype", "points", "limit", "seconds", "plain_seconds", "lines": [{"method", "source", "seconds",
        "flops"}]}``, the limit in operations per second; lines in the order of their time, which add up to
        less than ``seconds``; ``plain_seconds`` is what a decode takes that nobody looks at.

    Raises:
        ConfigError: The processor has no arithmetic of that type, or there is no such type.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be {' or '.join(DTYPES)}; got {dtype!r}.")
    if dtype == "bfloat16" and not cpu_has_bfloat16():
        raise ConfigError(
            "This processor has no bfloat16 arithmetic; emulated, a decode takes a hundred times as long. "
            "Ask for float32, or run this on one with AVX-512 BF16 or AMX."
        )
    with _one_core():
        _, decode = random_decode(dtype, points, config or DecoderConfig())
        product = product_jobs(CPU, largest)[f"product/{dtype}"]
        decode()
        limits, turns, plain = [], [], []
        for _ in range(rounds):
            limits.append(product.units / _seconds(product.work))
            plain.append(_seconds(decode))
            with _LineClock() as clock:
                seconds = _seconds(decode)
            turns.append((seconds - clock.own, clock.spent))
    # One turn, so that its lines add up: that of the median.
    seconds, spent = sorted(turns, key=lambda turn: turn[0])[rounds // 2]
    lines = [
        {"method": method, "source": source, "seconds": entry.seconds, "flops": entry.flops}
        for (method, source), entry in spent.items()
    ]
    lines.sort(key=lambda line: -line["seconds"])
    return {
        "dtype": dtype,
        "points": points,
        "limit": median(limits),
        "seconds": seconds,
        "plain_seconds": median(plain),
        "lines": lines,
    }


def account_table(found: Mapping[str, Any]) -> str:
    """Write an account as Markdown.

    Args:
        found: What ``decoder_account`` returns.

    Returns:
        One row per line that takes at least a hundredth of the decode, the others together, and what is spent
        between operations; then the sum.
    """
    whole, limit = found["seconds"], found["limit"]
    heads = ["line of `sam/decoder.py`", "ms", "share", "GFLOP", "of the limit", "ms above the limit"]
    rows = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]

    def row(name: str, seconds: float, flops: int) -> str:
        rate = f"{100 * flops / limit / seconds:.0f} %" if flops else "-"
        cells = [name, f"{1e3 * seconds:.2f}", f"{100 * seconds / whole:.0f} %", f"{flops / 1e9:.2f}", rate]
        return "| " + " | ".join([*cells, f"{1e3 * (seconds - flops / limit):.2f}"]) + " |"

    small = [line for line in found["lines"] if line["seconds"] < SMALL * whole]
    for line in found["lines"][: len(found["lines"]) - len(small)]:
        rows.append(row(f"`{line['method']}`: `{line['source']}`", line["seconds"], line["flops"]))
    rows.append(row(f"{len(small)} further lines", *_sum(small)))
    seconds, flops = _sum(found["lines"])
    rows.append(row("between operations", whole - seconds, 0))
    rows.append(row("**all**", whole, flops))
    plain = found["plain_seconds"]
    said = (
        f"One core, {found['dtype']}, {found['points']} prompts; its limit: {limit / 1e9:.0f} GFLOP/s. "
        f"Without the clock a decode takes {1e3 * plain:.2f} ms, {100 * flops / limit / plain:.0f} % of the "
        "limit."
    )
    return "\n".join([*rows, "", said])


def _sum(lines: list[dict[str, Any]]) -> tuple[float, int]:
    return sum(line["seconds"] for line in lines), sum(line["flops"] for line in lines)
