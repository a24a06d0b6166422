"""Episodes written down so that anyone can play them again and compare: the files of ``ppd validate``."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import gymnasium
import numpy as np

from ppd_env.config import EnvConfig
from ppd_env.envs.gymnasium_env import PointPromptEnv
from ppd_env.errors import EpisodeError, PPDError
from ppd_env.features.registry import load_features
from ppd_env.opponents import is_own_opponent
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.whole_files import installed_versions

FORMAT = "ppd-episode/1"
PROJECT = "point-prompt-defender"
PACKAGES = (PROJECT, "torch", "numpy", "gymnasium")
TOLERANCE = 1e-4
"""Dice may differ by this much: other processors round otherwise."""

LARGEST = 4 * 2**20
"""Bytes; an episode of 300 steps has about 20 kB, and nothing larger is read."""


@dataclass(frozen=True)
class Episode:
    """One whole episode of ``PPD-v0``: what decides it, what was played, and what came of it.

    Args:
        env_id: The environment's id; its number says which rules were played.
        make: All arguments of ``gymnasium.make``.
        signatures: Of ``scenes``, ``segmenter`` and ``features``: their contents, whatever their names.
        versions: Of the packages it was played with.
        seed: What ``reset`` was given; None: the generator went on.
        generator: State of the environment's generator before ``reset`` where there was no seed.
        options: What ``reset`` was given.
        start: ``scene_name``, ``initial_dice``, and ``ideal_dice`` where an attack came first.
        actions: One integer per step.
        rewards: One per step.
        dice: Dice after each step.
        terminated: How it ended.
        truncated: How it ended.
    """

    env_id: str
    make: Mapping[str, Any]
    signatures: Mapping[str, str]
    versions: Mapping[str, str]
    seed: int | None
    generator: Mapping[str, Any] | None
    options: Mapping[str, Any] | None
    start: Mapping[str, Any]
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    dice: list[float] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the content of an episode file."""
        content = {"format": FORMAT, **dataclasses.asdict(self), "final_dice": self.dice[-1]}
        content = json.loads(json.dumps(content, default=_plain, allow_nan=False))
        return {**content, "checksum": _checksum(content)}


def signatures(env: PointPromptEnv) -> dict[str, str]:
    """Return what identifies an environment's scenes and models, whatever their names."""
    config = env.config
    return {
        "scenes": env.play.games.simulator.bank.source.signature,
        "segmenter": load_segmenter(config.segmenter, config.device).signature,
        "features": load_features(config.features_uri, config.device).signature,
    }


def begun(
    env: PointPromptEnv,
    info: Mapping[str, Any],
    seed: int | None,
    generator: Mapping[str, Any] | None,
    options: Mapping[str, Any] | None,
) -> Episode:
    """Return the record of an episode of which nothing is played yet.

    Args:
        env: The bare environment, just reset.
        info: What ``reset`` gave.
        seed: What ``reset`` was given.
        generator: See ``Episode``.
        options: What ``reset`` was given.
    """
    assert env.spec is not None
    return Episode(
        env_id=env.spec.id,
        make=dataclasses.asdict(env.config),
        signatures=signatures(env),
        versions=installed_versions(PACKAGES),
        seed=seed,
        generator=generator,
        options=options,
        start=_start(info),
    )


def read_episode(path: Path) -> Episode:
    """Read an episode file and check all that can be checked without playing.

    Raises:
        EpisodeError: The file is cut short, was edited, holds what is no number, or has another format.
    """
    try:
        if path.stat().st_size > LARGEST:
            _reject(f"it is larger than {LARGEST} bytes, which no episode is")
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except EpisodeError as error:
        raise EpisodeError(f"{path}: {error}") from None
    except OSError as error:
        raise EpisodeError(f"{path} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise EpisodeError(f"{path} is not whole JSON: it was cut short or damaged.") from None
    try:
        return _parse(content)
    except EpisodeError as error:
        raise EpisodeError(f"{path}: {error}") from None


def replay(
    episode: Episode,
    *,
    trusted: Collection[str] = (),
    any_version: bool = False,
    device: str = "cpu",
    tolerance: float = TOLERANCE,
) -> None:
    """Play an episode again and compare every step.

    Args:
        episode: The record.
        trusted: Opponents ``module:callable`` that may be imported; a submitted file must not run code.
        any_version: Play it although another version of this project recorded it.
        device: Torch device to play on, whatever the record names.
        tolerance: On every Dice and reward.

    Raises:
        EpisodeError: The episode cannot be played here, or differs from its record; the message says where.
    """
    _check_version(episode, any_version)
    try:
        # Gymnasium's own arguments, such as a limit of steps, are none of the game's.
        opponent = EnvConfig.from_kwargs(**{**episode.make, "device": device}).opponent
        if not is_own_opponent(opponent) and opponent.partition("?")[0] not in trusted:
            _reject(f"its opponent {opponent!r} is code that is not part of this project, and is not run")
        env = gymnasium.make(episode.env_id, **{**episode.make, "device": device})
    except EpisodeError:
        raise
    except (PPDError, TypeError) as error:
        _reject(f"its environment cannot be made: {error}")
    try:
        _play(env, episode, tolerance)
    finally:
        env.close()


def _play(env: gymnasium.Env, episode: Episode, tolerance: float) -> None:
    bare = env.unwrapped
    assert isinstance(bare, PointPromptEnv)
    for name, value in signatures(bare).items():
        if episode.signatures.get(name) != value:
            _reject(f"it was played with other {name} than {episode.make[name]!r} names here")
    info = _reset(env, episode)
    _compare_start(_start(info), episode.start, tolerance)
    over = (False, False)
    for number, action in enumerate(episode.actions, 1):
        if any(over):
            _reject(f"step {number}: the game was over before it")
        mask = info["action_mask"]
        if not 0 <= action < len(mask) or not mask[action]:
            _reject(f"step {number}: action {action} is illegal")
        _, reward, terminated, truncated, info = env.step(action)
        over = (terminated, truncated)
        _compare(f"step {number}: Dice", info["dice"], episode.dice[number - 1], tolerance)
        _compare(f"step {number}: the reward", float(reward), episode.rewards[number - 1], tolerance)
    if not any(over):
        _reject(f"the game goes on after its {len(episode.actions)} steps: moves were cut off")
    if over != (episode.terminated, episode.truncated):
        _reject("it says that the game ended in another way than it does")


def _reset(env: gymnasium.Env, episode: Episode) -> dict[str, Any]:
    try:
        if episode.generator is not None:
            generator = np.random.default_rng()
            generator.bit_generator.state = dict(episode.generator)
            env.unwrapped.np_random = generator
        _, info = env.reset(
            seed=episode.seed, options=None if episode.options is None else dict(episode.options)
        )
    except (PPDError, ValueError, TypeError, KeyError, OverflowError, gymnasium.error.Error) as error:
        _reject(f"it cannot be begun: {error}")
    return info


def _start(info: Mapping[str, Any]) -> dict[str, Any]:
    names = ("scene_name", "initial_dice", "ideal_dice", "steps")
    return {name: info[name] for name in names if name in info}


def _compare_start(now: Mapping[str, Any], then: Mapping[str, Any], tolerance: float) -> None:
    if set(now) != set(then):
        _reject(f"its start holds {sorted(then)}, and not {sorted(now)}")
    for name in ("scene_name", "steps"):
        if now[name] != then[name]:
            _reject(f"it begins with {name} {now[name]!r}, and not {then[name]!r}")
    for name in sorted(set(now) - {"scene_name", "steps"}):
        _compare(f"start: {name}", now[name], then[name], tolerance)


def _compare(what: str, now: float, then: Any, tolerance: float) -> None:
    # Written so that NaN is no match.
    if not _is_number(then) or not abs(now - then) <= tolerance:
        _reject(f"{what} is {now:.6f}, and not {then}")


def _check_version(episode: Episode, any_version: bool) -> None:
    here, there = installed_versions((PROJECT,)).get(PROJECT), episode.versions.get(PROJECT)
    if here != there and not any_version:
        _reject(f"it was recorded with version {there} of {PROJECT}, and {here} is installed")
    if episode.env_id not in gymnasium.registry or not _is_ours(episode.env_id):
        _reject(f"{episode.env_id!r} is no environment of this project's version {here}")


def _is_ours(env_id: str) -> bool:
    return gymnasium.registry[env_id].entry_point == f"{PointPromptEnv.__module__}:{PointPromptEnv.__name__}"


_TYPES: dict[str, tuple[type, ...]] = {
    "env_id": (str,),
    "make": (dict,),
    "signatures": (dict,),
    "versions": (dict,),
    "seed": (int, type(None)),
    "generator": (dict, type(None)),
    "options": (dict, type(None)),
    "start": (dict,),
    "actions": (list,),
    "rewards": (list,),
    "dice": (list,),
    "terminated": (bool,),
    "truncated": (bool,),
}


def _parse(content: Any) -> Episode:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        _reject(f"its format is {found!r}, and this version reads {FORMAT!r}")
    expected = {"format", *_TYPES, "final_dice", "checksum"}
    if set(content) != expected:
        _reject(f"entries are missing or unknown: {', '.join(sorted(set(content) ^ expected))}")
    for name, types in _TYPES.items():
        if not isinstance(content[name], types) or (bool not in types and isinstance(content[name], bool)):
            _reject(f"{name} is of the wrong kind")
    episode = Episode(**{name: content[name] for name in _TYPES})
    _check_lists(episode, content["final_dice"])
    if (episode.seed is None) == (episode.generator is None):
        _reject("it must hold either a seed or a generator")
    if content["checksum"] != _checksum({k: v for k, v in content.items() if k != "checksum"}):
        _reject("it was edited: its checksum does not fit its content")
    return episode


def _check_lists(episode: Episode, final_dice: Any) -> None:
    count = len(episode.actions)
    if not count or len(episode.rewards) != count or len(episode.dice) != count:
        _reject("it needs one reward and one Dice for each of its actions, and at least one action")
    if not all(type(action) is int for action in episode.actions):
        _reject("an action is not an integer")
    if not all(map(_is_number, [*episode.rewards, *episode.dice, final_dice])):
        _reject("a reward or Dice is not a number")
    if final_dice != episode.dice[-1]:
        _reject("its final Dice is not the Dice after its last step")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _no_number(text: str) -> NoReturn:
    raise EpisodeError(f"it holds {text}, which is no number")


def _reject(reason: str) -> NoReturn:
    raise EpisodeError(f"{reason}." if not reason.endswith(".") else reason)


def _checksum(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Turn what numpy makes into what JSON knows."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} does not go into an episode file.")
