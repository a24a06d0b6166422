"""``ppd validate``: plays recorded episodes again and compares, or records one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

TRUSTED = ("ppd_agents.defender:load_opponent",)
"""Opponents beside the environment's own that a submitted file may name: they load weights, run no code."""


@dataclass(frozen=True)
class Validate:
    """Play recorded episodes again; reject what was edited, cut short, or comes from another version."""

    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="PATH")] = ()
    """Episode files, folders of them, or folders of `ppd benchmark`, whose scores are compared too."""
    record: Annotated[Path | None, arg(metavar="FILE")] = None
    """Record an episode to this file instead."""
    player: str = "ppd_agents.defender:load_opponent?path=mini"
    """Recording: who plays: random, oracle, or module:callable?key=value."""
    role: Literal["attacker", "defender"] = "defender"
    """Recording: which role."""
    scenes: str = "shapes://test?count=20&seed=0"
    """Recording: URI of the scenes."""
    segmenter: str = "mini"
    """Recording: URI of the segmenter."""
    features: str = "mini"
    """Recording: URI of the patch features."""
    grid: int = 16
    """Recording: patches per side."""
    seed: int = 0
    """Recording: seed of the episode."""
    device: str = "cpu"
    """A torch device to replay or record on, such as cuda."""
    any_version: bool = False
    """Replay files of another version of this project too."""
    json: Annotated[Path | None, arg(metavar="PATH")] = None
    """Write the verdicts here."""


def run_validate(options: Validate) -> int:
    """Record, or replay and print a verdict on every file; return 1 where one was rejected."""
    from ppd_env.errors import ConfigError
    from ppd_env.whole_files import write_json

    if bool(options.files) == (options.record is not None):
        raise ConfigError("Name episode files to check, or record one with --record FILE.")
    if options.record is not None:
        print(f"Recorded {record_episode(options, options.record)}")
        return 0
    verdicts = dict(judge(options.files, options.device, any_version=options.any_version))
    for path, reason in verdicts.items():
        if reason:
            print(f"rejected  {path}\n          {reason}")
        elif len(verdicts) <= 20:
            print(f"valid     {path}")
    rejected = sum(map(bool, verdicts.values()))
    print(f"{len(verdicts) - rejected} valid, {rejected} rejected.")
    if options.json is not None:
        found = {str(path): {"valid": not reason, "reason": reason} for path, reason in verdicts.items()}
        write_json(options.json, found)
    return 1 if rejected else 0


def record_episode(options: Validate, path: Path) -> Path:
    """Play one episode with ``options.player`` and write it to ``path``, which is returned."""
    import gymnasium
    import numpy as np

    from ppd_env.envs.gymnasium_env import PointPromptEnv
    from ppd_env.opponents import load_opponent
    from ppd_env.wrappers import RecordEpisode

    names = ("role", "scenes", "segmenter", "features", "grid", "device")
    made: dict[str, Any] = {name: getattr(options, name) for name in names}
    player = load_opponent(options.player)
    env = RecordEpisode(gymnasium.make("PPD-v0", **made), path.parent, file=path.name)
    bare = env.unwrapped
    assert isinstance(bare, PointPromptEnv)
    games, rng = bare.play.games, np.random.default_rng(options.seed)
    env.reset(seed=options.seed)
    over = False
    while not over:
        _, _, terminated, truncated, _ = env.step(int(player.act(games, games.everyone(), [rng])[0]))
        over = terminated or truncated
    env.close()
    return path


def judge(
    paths: tuple[Path, ...], device: str = "cpu", *, any_version: bool = False
) -> Iterator[tuple[Path, str]]:
    """Replay every episode that ``paths`` name, with a bar.

    Args:
        paths: Files, or folders in which every ``.json`` file is an episode, but for a benchmark's
            ``run.json``, whose scores must be those of the episodes beside it, and its ``benchmark.json``.
        device: See ``replay``.
        any_version: See ``replay``.

    Yields:
        Each file and why it is rejected; empty where it is valid.
    """
    from tqdm import tqdm

    from ppd_agents.benchmark.submission import RUN_FILE, check_run
    from ppd_env.errors import PPDError
    from ppd_env.recording import read_episode, replay

    for path in tqdm(list(_files(paths)), desc="replaying", unit="file", disable=None, leave=False):
        try:
            if path.name == RUN_FILE:
                check_run(path.parent)
            else:
                replay(read_episode(path), trusted=TRUSTED, any_version=any_version, device=device)
        except PPDError as error:
            yield path, str(error)
        else:
            yield path, ""


def _files(paths: tuple[Path, ...]) -> Iterator[Path]:
    from ppd_agents.benchmark.board import BOARD_FILE
    from ppd_env.errors import PPDError

    for path in paths:
        if path.is_dir():
            found = sorted(one for one in path.rglob("*.json") if one.name != BOARD_FILE)
            if not found:
                raise PPDError(f"{path} holds no episode files.")
            yield from found
        else:
            yield path
