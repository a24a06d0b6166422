"""Tell where the mask decoder's time goes, line by line: ``python -m experiments.decoder_account``.

One prompt set of SAM's decoder, random weights, on one core: what each core does while a batch is decoded.
Each line of the decoder is held against what its matrix products would take at the core's measured limit.
``--json PATH`` writes the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from ppd_agents.evaluation.tables import versions
from ppd_agents.speed.account import account_table, decoder_account
from ppd_agents.speed.machine import machine
from ppd_env.allocator import keep_freed_memory
from ppd_env.whole_files import write_json


@dataclass(frozen=True)
class Options:
    """Tell where the mask decoder's time goes."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """What it computes in; bfloat16 needs a processor that has it."""
    points: int = 40
    """Prompts of the set."""
    rounds: int = 15
    """Repeats, of which the one of median time counts."""
    json: Path | None = None
    """Write the result here."""


def main(options: Options) -> None:
    """Measure, print the table and write the numbers where asked."""
    keep_freed_memory()
    found = decoder_account(options.dtype, options.points, options.rounds)
    print(account_table(found))
    if options.json is not None:
        about = {"machine": machine(torch.device("cpu")), "versions": versions()}
        write_json(options.json, {**about, "results": found})


if __name__ == "__main__":
    main(tyro.cli(Options))
