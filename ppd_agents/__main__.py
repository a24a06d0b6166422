"""``python -m ppd_agents``: the same as ``ppd``."""

from ppd_agents.cli import main

if __name__ == "__main__":
    main()
