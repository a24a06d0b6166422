"""``ppd play``: its options and which of window, terminal and recorder it starts, imported when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from ppd_env.errors import ConfigError


@dataclass(frozen=True)
class Play:
    """Play the game yourself with keyboard and mouse, or record how an agent plays it."""

    role: Literal["attacker", "defender"] = "defender"
    """What you play: the attacker adds prompts that spoil the mask, the defender takes them away."""
    opponent: str = "mini"
    """Who plays the other role: random, oracle, mini (the agents that ship), or the folder of a training."""
    scenes: str = "photos://train"
    """URI of the scenes."""
    segmenter: str = "mini"
    """URI of the segmenter."""
    features: str = "mini"
    """URI of the patch features."""
    grid: int = 16
    """Patches per side."""
    steps: int = 10
    """Steps of the attack, and of the defence."""
    seed: int = 0
    """Decides scenes, prompts and random moves."""
    terminal: bool = False
    """Play in the terminal even where there is a display."""
    record: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Do not play: let --player play, and write a film of every game into this folder."""
    player: str = "mini"
    """Who plays the role when recording: random, oracle, mini, or the folder of a training."""
    episodes: int = 1
    """Number of games to record."""
    video: Literal["gif", "mp4"] = "gif"
    """Kind of film; mp4 needs the package moviepy."""


def run_play(options: Play) -> int:
    """Play or record, and return the exit code.

    Raises:
        PPDError: An option is impossible, or there is nothing to play in.
    """
    if options.seed < 0 or options.episodes < 1:
        raise ConfigError(
            f"--seed must be at least 0 and --episodes at least 1, got {options.seed} and {options.episodes}."
        )
    if options.record is not None:
        from ppd_agents.play.recording import record

        for path in record(options, options.record):
            print(f"Written: {path}")
        return 0
    from ppd_agents.play.session import Session
    from ppd_agents.play.terminal import Terminal, need_terminal
    from ppd_agents.play.window import Window, has_display

    windowed = has_display() and not options.terminal
    if not windowed:
        need_terminal()  # before minutes are spent on opening scenes
    session = Session(options)
    try:
        (Window(session) if windowed else Terminal(session)).run()
    finally:
        session.close()
    print(f"{session.games_played} games played." if session.games_played != 1 else "1 game played.")
    return 0
