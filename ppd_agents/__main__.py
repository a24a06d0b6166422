"""``ppd`` and ``python -m ppd_agents``: starts the command line, also where a package it needs is missing."""

from __future__ import annotations

import sys

from ppd_agents.failures import guarded


def main() -> None:
    """Run the command the process was given and exit; without the extra [agents], say so in a sentence."""

    def start() -> int:
        from ppd_agents.cli import main as run

        run()
        return 0

    sys.exit(guarded(start, debug="--debug" in sys.argv))


if __name__ == "__main__":
    main()
