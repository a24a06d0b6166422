"""The result of ``ppd bench`` as Markdown, for a terminal and for the README."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ppd_agents.speed.clock import growth

_NONE = "-"


def performance_table(result: Mapping[str, Any], segmenters: Collection[str] | None = None) -> str:
    """Write the README's table: steps per second of every kind of environment, beside the user's loop.

    Args:
        result: What ``run_bench`` returns.
        segmenters: Names of those to be shown; None: all.

    Returns:
        One row per segmenter and number of games.
    """
    lines = [
        "| segmenter | games | env steps/s | times the user's loop | environment's own share |",
        "|---|---|---|---|---|",
    ]
    for name, found in result["results"]["segmenters"].items():
        if segmenters is not None and name not in segmenters:
            continue
        for who, step in found["steps"].items():
            ratio = f"{step['times_loop']:.2f}" if "times_loop" in step else _NONE
            kind = "one, `gym.make`" if who == "single" else f"{who}, `gym.make_vec`"
            share = f"{100 * found['overhead'][who]:.1f} %"
            lines.append(f"| {_called(name)} | {kind} | {_number(step['per_second'])} | {ratio} | {share} |")
        if found["loop"] is not None:
            rate = _number(found["loop"]["per_second"])
            lines.append(f"| {_called(name)} | the user's loop | {rate} | 1 | {_NONE} |")
    return "\n".join(lines)


def limits_table(result: Mapping[str, Any]) -> str:
    """Write the decoder's throughput as a share of the machine's measured matrix products, as Markdown."""
    limit = result["results"]["limit"]
    lines = [
        "| decoder | prompt sets at once | decodes/s | GFLOP per decode, as the library writes it "
        "| that work, as a share of the machine's limit |",
        "|---|---|---|---|---|",
    ]
    for name, found in result["results"]["segmenters"].items():
        for batch, decode in found["decode"].items():
            share = f"{100 * decode['share_of_limit']:.0f} %"
            cells = [
                _called(name),
                batch,
                _number(decode["per_second"]),
                f"{decode['flops'] / 1e9:.2f}",
                share,
            ]
            lines.append("| " + " | ".join(cells) + " |")
    said = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in limit.items())
    return "\n".join([*lines, "", f"Limit (one large matrix product): {said}."])


def growth_table(result: Mapping[str, Any]) -> str:
    """Write how costs grow, as Markdown: exponent 0 is constant, 1 linear; over all sizes, and at the end."""
    lines = [
        "| cost against | smallest | largest | exponent, fitted | of the two largest |",
        "|---|---|---|---|---|",
    ]
    for what, found in result["results"]["growth"].items():
        sizes, seconds = found["sizes"], found["seconds"]
        ends = [f"{sizes[at]}: {1e3 * seconds[at]:.3g} ms" for at in (0, -1)]
        exponent = _NONE if found["exponent"] is None else f"{found['exponent']:.2f}"
        last = f"{growth(sizes[-2:], seconds[-2:]):.2f}" if len(sizes) > 1 else _NONE
        lines.append(f"| {what} | {ends[0]} | {ends[1]} | {exponent} | {last} |")
    return "\n".join(lines)


def learner_table(result: Mapping[str, Any]) -> str:
    """Write what a gradient step of either agent and a remembered transition cost, as Markdown."""
    results = result["results"]
    lines = ["| learner | |", "|---|---|"]
    for role, step in results["learner"].items():
        lines.append(f"| gradient step, {role} | {1e3 * step['seconds']:.1f} ms |")
    for nodes, size in results["memory"]["bytes_per_transition"].items():
        lines.append(f"| a transition of {nodes} nodes | {size:.0f} bytes |")
    return "\n".join(lines)


def bench_text(result: Mapping[str, Any]) -> str:
    """Write everything a terminal shows: the machine, the tables, learner and memory, what is missing."""
    about, results = result["machine"], result["results"]
    where = about.get("gpu", about["cpu"])
    parts = [
        f"{where}; {about['cores']} cores, {about['threads']} threads, torch {about['torch']}.",
        performance_table(result),
        limits_table(result),
        growth_table(result),
    ]
    rest = [f"Gradient step, {role}: {1e3 * t['seconds']:.1f} ms" for role, t in results["learner"].items()]
    memory = results["memory"]
    rest += [f"Peak memory, {where}: {size / 2**20:.0f} MiB" for where, size in memory["peak_bytes"].items()]
    rest += [f"A transition of {n} nodes: {size:.0f} B" for n, size in memory["bytes_per_transition"].items()]
    rest += [
        f"The user's loop of {name}: {found['loop']['measured']}"
        for name, found in results["segmenters"].items()
        if found["loop"] is not None
    ]
    rest += [f"{name}: {reason}" for name, reason in results["unavailable"].items()]
    return "\n\n".join(parts) + "\n\n" + "\n".join(rest)


def _called(name: str) -> str:
    """Return a segmenter's name for readers."""
    plain, _, dtype = name.partition(" ")
    title = f"`{plain}`" if plain == "mini" else f"SAM ViT-{plain[-1].upper()}"
    return f"{title}, {dtype}" if dtype else title


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"
