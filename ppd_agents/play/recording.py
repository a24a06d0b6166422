"""An agent's games as pictures that move: GIF without further packages, or MP4 by Gymnasium's RecordVideo."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, cast

import gymnasium
import numpy as np
from gymnasium.wrappers import RecordVideo
from PIL import Image
from tqdm import tqdm

from ppd_agents.play.session import make_env, opponent_uri
from ppd_env.envs.gymnasium_env import RENDER_FPS, PointPromptEnv
from ppd_env.errors import PPDError
from ppd_env.opponents import Opponent, load_opponent
from ppd_env.rendering import HIGHLIGHT, INK, MASK, PAPER, SIGN_COLOURS, TRUTH

if TYPE_CHECKING:
    from ppd_agents.play_command import Play

_LAST = 2.0
"""Seconds a GIF stays on its last picture."""


def record(options: Play, folder: Path) -> list[Path]:
    """Let an agent play, and write one file per game.

    Args:
        options: Who plays what: role, player, opponent, scenes, number of games, kind of file, seed.
        folder: Takes ``ROLE-episode-NUMBER.gif`` or ``.mp4``; made if need be.

    Returns:
        The files.

    Raises:
        PPDError: An option is impossible, a package is missing, or the folder cannot be written to.
    """
    opponent = opponent_uri(options.opponent, "attacker") if options.role == "defender" else "random"
    player = load_opponent(opponent_uri(options.player, options.role))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        env = make_env(options, opponent)
        try:
            return _films(env, player, options, folder)
        finally:
            env.close()
    except OSError as error:
        raise PPDError(
            f"{folder}: cannot be written to ({error}); name another folder by --record."
        ) from error


def _films(env: gymnasium.Env, player: Opponent, options: Play, folder: Path) -> list[Path]:
    """Play the games and write them."""
    names = [f"{options.role}-episode-{number}.{options.video}" for number in range(options.episodes)]
    aside = folder / ".films.tmp"
    if options.video == "mp4":
        _need_moviepy()
        shutil.rmtree(aside, ignore_errors=True)
        env = RecordVideo(env, str(aside), episode_trigger=lambda _: True, name_prefix=options.role)
    rng = np.random.default_rng(options.seed)
    seed: int | None = options.seed
    for name in tqdm(names, desc="recording", unit="game", delay=2):
        pictures = _game(env, player, seed, rng, keep=options.video == "gif")
        seed = None  # only the first game seeds; then the generator goes on
        if options.video == "gif":
            _write_gif(folder / name, pictures)
    env.close()  # RecordVideo writes its last file here
    if options.video == "mp4":
        for name in names:
            (aside / name).replace(folder / name)
        shutil.rmtree(aside)
    return [folder / name for name in names]


def _game(
    env: gymnasium.Env, player: Opponent, seed: int | None, rng: np.random.Generator, *, keep: bool
) -> list[np.ndarray]:
    """Play one game; return its pictures, (height, width, 3) uint8 each, where they are to be kept."""
    games = cast(PointPromptEnv, env.unwrapped).play.games
    env.reset(seed=seed)
    pictures, over = [env.render()] if keep else [], False
    while not over:
        action = int(player.act(games, games.everyone(), [rng])[0])
        _, _, terminated, truncated, _ = env.step(action)
        over = terminated or truncated
        if keep:
            pictures.append(env.render())
    return [np.asarray(picture) for picture in pictures]


def _write_gif(path: Path, pictures: list[np.ndarray]) -> None:
    """Write pictures of one size, aside first and then renamed."""
    first, *others = (_with_palette(Image.fromarray(picture)) for picture in pictures)
    each = round(1000 / RENDER_FPS)
    durations = [each] * len(others) + [round(1000 * _LAST)]
    aside = path.with_name(path.name + ".tmp")
    first.save(aside, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    aside.replace(path)


def _with_palette(picture: Image.Image) -> Image.Image:
    """Reduce a picture to 256 colours, among them those that mean something."""
    signs = (MASK, TRUTH, INK, PAPER, HIGHLIGHT, *SIGN_COLOURS.values())
    count = 256 - len(signs)
    usual = (picture.quantize(count).getpalette() or [])[: 3 * count]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*usual, *(value for colour in signs for value in colour)])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def _need_moviepy() -> None:
    try:
        import moviepy  # noqa: F401
    except ImportError:
        raise PPDError(
            "MP4 files need the package moviepy: pip install moviepy (or 'point-prompt-defender[video]'), or "
            "record with --video gif."
        ) from None
