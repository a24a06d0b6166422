"""``ppd doctor``: its options, and what it prints; ``doctor`` does the work, imported when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg


@dataclass(frozen=True)
class Doctor:
    """Tell what is installed, which devices and weights there are, and what to do next."""

    json: Annotated[Path | None, arg(metavar="PATH")] = None
    """Write what was found here."""


def run_doctor(options: Doctor) -> int:
    """Look at everything, print it, and return the exit code: 1 where something necessary is broken."""
    from ppd_agents.doctor import as_json, examine, text

    checks = examine()
    print(text(checks))
    if options.json is not None:
        from ppd_env.whole_files import write_json

        write_json(options.json, as_json(checks))
    return 0 if all(check.ok for check in checks) else 1
