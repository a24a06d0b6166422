"""How an episode starts: its scene, its step budgets, its prompts and an opponent's attack."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ppd_env.config import STARTS, GameConfig, Steps
from ppd_env.errors import PPDError
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE
from ppd_env.game_batch import GameBatch
from ppd_env.opponents import Opponent, play_phase
from ppd_env.prompting import ideal_prompts, matching_prompts, noise_prompts, patch_coverage
from ppd_env.scenes.bank import SceneBank
from ppd_env.simulator import Segmentation


@dataclass(frozen=True)
class ResetOptions:
    """What ``reset(options=...)`` may fix; None leaves it to the generator.

    Args:
        scene: Row of the scene bank.
        prompts: (N,) statuses 0, 1, 2, or ``{"points": (n, 2) pixels (x, y), "labels": (n,) 1 or 0}``; each
            point moves to the centre of its patch, and of two in one patch the later counts.
        start: ``"ideal"``, ``"ideal+attack"``, ``"matching"`` or ``"noise"``; with ``prompts``,
            ``"ideal+attack"`` attacks those.
        steps: Step budget of both roles.
    """

    scene: int | None = None
    prompts: Any = None
    start: str | None = None
    steps: int | None = None

    @staticmethod
    def parse(options: Mapping[str, Any] | None) -> ResetOptions:
        """Read the options; unknown ones warn.

        Raises:
            PPDError: A known option has an impossible value.
        """
        options = dict(options or {})
        known = {name: options.pop(name, None) for name in ("scene", "prompts", "start", "steps")}
        if options:
            listed = ", ".join(sorted(map(repr, options)))
            warnings.warn(
                f"Unknown reset options {listed} are ignored; known ones: scene, prompts, start, steps.",
                stacklevel=3,
            )
        if known["start"] not in (None, *STARTS):
            raise PPDError(f"Option start must be one of {', '.join(STARTS)}; got {known['start']!r}.")
        for name in ("scene", "steps"):
            value = known[name]
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer)):
                raise PPDError(f"Option {name} must be an integer; got {value!r}.")
        if known["steps"] is not None and int(known["steps"]) < 1:
            raise PPDError(f"Option steps must be at least 1; got {known['steps']!r}.")
        return ResetOptions(**known)


@dataclass(frozen=True)
class Beginning:
    """k games about to begin; the prompts the agent starts from are not decoded yet.

    Args:
        which: (k,) int64, the games.
        rows: (k,) int64, rows of the bank.
        given: (k, N) int8, the prompts before the opponent's attack; None where there was none.
        status: (k, N) int8, the prompts the agent starts from.
        attack, defence: (k,) int64, step budgets.
        seen: What ``given`` decodes to, where the opponent had to see it first.
    """

    which: Tensor
    rows: Tensor
    given: Tensor | None
    status: Tensor
    attack: Tensor
    defence: Tensor
    seen: Segmentation | None = None

    def to_decode(self) -> tuple[Tensor, Tensor]:
        """Return the prompt sets still to be decoded before the first move, (m,) rows and (m, N) statuses."""
        if self.given is None or self.seen is not None:
            return self.rows, self.status
        return self.rows.repeat(2), torch.cat([self.given, self.status])


class EpisodeStarter:
    """Begins games of one role.

    Args:
        config: The arguments of the environment.
        games: The games it begins.
        attacking: The role that moves first once they have begun.
        opponent: Attacks first where the start asks for it; None where no start may.
    """

    def __init__(
        self, config: GameConfig, games: GameBatch, *, attacking: bool, opponent: Opponent | None
    ) -> None:
        self._config = config
        self._games = games
        self._attacking = attacking
        self._opponent = opponent
        self.ideal_dice = torch.full((games.size,), torch.nan, device=games.dice.device)
        """(B,) float32, Dice before the opponent's attack; NaN where there was none."""
        self._rehearsal: GameBatch | None = None

    @property
    def _bank(self) -> SceneBank:
        return self._games.simulator.bank

    def start(
        self, which: Tensor, rngs: Sequence[np.random.Generator], options: Mapping[str, Any] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Begin the k games ``which``.

        Args:
            which: (k,) int64.
            rngs: k generators; each draws scene, budgets, prompts and the opponent's moves, in this order.
            options: See ``ResetOptions``.

        Returns:
            The step budgets (k,) int64 of the attack and of the defence.
        """
        chosen = ResetOptions.parse(options)
        drawn = self._draw(which, rngs, chosen)
        if self._attacked(chosen) and not self._blind:
            self._attack(drawn, rngs)
            return drawn.attack, drawn.defence
        if self._attacked(chosen):
            drawn = self._attack_blindly(drawn, rngs)
        self.begin(drawn, self._games.simulator.segment(*drawn.to_decode()))
        return drawn.attack, drawn.defence

    def foresee(self, which: Tensor, rngs: Sequence[np.random.Generator]) -> Beginning | None:
        """Draw how the k games ``which`` would begin, from their k generators, leaving the games as they are.

        Returns:
            What ``begin`` takes; None, and nothing drawn, where an opponent has to see masks first.
        """
        usual = ResetOptions()
        if not self._attacked(usual):
            return self._draw(which, rngs, usual)
        return self._attack_blindly(self._draw(which, rngs, usual), rngs) if self._blind else None

    def begin(self, beginning: Beginning, decoded: Segmentation) -> None:
        """Begin games whose prompts, ``beginning.to_decode()``, have been decoded."""
        count, which = len(beginning.rows), beginning.which
        before = decoded if beginning.seen is None else beginning.seen
        self.ideal_dice[which] = torch.nan if beginning.given is None else before.dice[:count]
        steps = beginning.attack if self._attacking else beginning.defence
        role = torch.full((count,), self._attacking)
        self._games.begin(which, beginning.rows, beginning.status, steps, role, decoded[-count:])

    def coming_row(self, rng: np.random.Generator) -> int:
        """Return the scene of the next episode drawn from ``rng``, which is left as it is."""
        return self._row(copy.deepcopy(rng), ResetOptions())

    @property
    def _blind(self) -> bool:
        return bool(getattr(self._opponent, "blind", False))

    def _attacked(self, options: ResetOptions) -> bool:
        """Tell whether an opponent attacks before the episode begins."""
        attacked = (options.start or self._start_state(options)) == "ideal+attack"
        if attacked and self._opponent is None:
            raise PPDError(
                "Start 'ideal+attack' needs an opponent; a game of two agents starts from 'ideal'."
            )
        return attacked

    def _draw(self, which: Tensor, rngs: Sequence[np.random.Generator], options: ResetOptions) -> Beginning:
        """Draw scenes, budgets and prompts, before any attack."""
        rows, budgets, statuses = [], [], []
        for rng in rngs:
            rows.append(self._row(rng, options))
            budgets.append(self._budgets(rng, options))
            statuses.append(self._prompts(rows[-1], rng, options))
        attack, defence = torch.tensor(budgets).unbind(dim=1)
        status = torch.from_numpy(np.stack(statuses))
        return Beginning(which, torch.tensor(rows), None, status, attack, defence)

    def _attack(self, drawn: Beginning, rngs: Sequence[np.random.Generator]) -> None:
        """Let an opponent that looks at masks attack; the Dice before is kept in ``ideal_dice``."""
        assert self._opponent is not None
        games, which = self._games, drawn.which
        attacking = torch.ones(len(which), dtype=torch.bool)
        games.begin(which, drawn.rows, drawn.status, drawn.attack, attacking)
        self.ideal_dice[which] = games.dice[which]
        play_phase(games, which, self._opponent, rngs)
        steps = drawn.attack if self._attacking else drawn.defence
        games.change_role(which, steps, torch.full((len(which),), self._attacking))

    def _attack_blindly(self, drawn: Beginning, rngs: Sequence[np.random.Generator]) -> Beginning:
        """Let an opponent attack that looks at no mask while it plays, in games of their own.

        One that wants the mask before its attack has it decoded, ahead of the others; its moves are not.
        """
        assert self._opponent is not None
        if self._rehearsal is None:
            self._rehearsal = self._games.twin()
        games, count = self._rehearsal, len(drawn.rows)
        places = torch.arange(count, device=games.status.device)
        dealt = places, drawn.rows, drawn.status, drawn.attack, torch.ones(count, dtype=torch.bool)
        seen = None
        if getattr(self._opponent, "looks_once", False):
            seen = games.simulator.segment(drawn.rows, drawn.status)
            games.begin(*dealt, known=seen)
        else:
            games.deal(*dealt)
        play_phase(games, places, self._opponent, rngs)
        status = games.status[:count].to(drawn.status.device)
        return replace(drawn, given=drawn.status, status=status, seen=seen)

    def _start_state(self, options: ResetOptions) -> str:
        return "given" if options.prompts is not None else self._config.start_state

    def _row(self, rng: np.random.Generator, options: ResetOptions) -> int:
        count = len(self._bank)
        if options.scene is None:
            return int(rng.integers(count))
        if not 0 <= int(options.scene) < count:
            raise PPDError(f"Option scene must lie in [0, {count - 1}]; got {options.scene}.")
        return int(options.scene)

    def _budgets(self, rng: np.random.Generator, options: ResetOptions) -> tuple[int, int]:
        """Draw both step budgets, at once where they are given alike (PPD, Algorithm 1)."""
        if options.steps is not None:
            return int(options.steps), int(options.steps)
        attack = _draw_steps(self._config.attack_steps, rng)
        if self._config.defence_steps == self._config.attack_steps:
            return attack, attack
        return attack, _draw_steps(self._config.defence_steps, rng)

    def _prompts(self, row: int, rng: np.random.Generator, options: ResetOptions) -> np.ndarray:
        """Return the initial prompts of one game, (N,) int8."""
        bank = self._bank
        if options.prompts is not None:
            return given_prompts(options.prompts, bank, row)
        start = options.start or self._config.start_state
        if start == "noise":
            return noise_prompts(bank.features.shape[1], rng)
        if start == "matching":
            return _matched(bank, row, rng)
        truth, void = bank.truth[row].cpu().numpy(), bank.void[row].cpu().numpy()
        return ideal_prompts(truth, int(bank.peak[row]), rng, self._config.layout, void)


def _draw_steps(steps: Steps, rng: np.random.Generator) -> int:
    if isinstance(steps, int):
        return steps
    return int(rng.integers(steps[0], steps[1], endpoint=True))


def _matched(bank: SceneBank, row: int, rng: np.random.Generator) -> np.ndarray:
    """Match one scene against another one of the bank, drawn at random (itself in a bank of one)."""
    other = (row + int(rng.integers(1, max(2, len(bank))))) % len(bank)
    return matching_prompts(bank.features[other], _coverage(bank, other), bank.features[row])


@lru_cache(maxsize=1024)
def _coverage(bank: SceneBank, row: int) -> np.ndarray:
    """Return how much of each patch the native mask of a row covers, (N,) float32; read once per process."""
    scene = bank.raw(row)
    return patch_coverage(scene.mask, bank.grid, scene.void)


def given_prompts(prompts: Any, bank: SceneBank, row: int) -> np.ndarray:
    """Turn a user's prompts into statuses.

    Args:
        prompts: See ``ResetOptions.prompts``.
        bank: The scenes.
        row: The scene they belong to.

    Returns:
        (N,) int8 status.

    Raises:
        PPDError: They are neither statuses nor points, or a point lies outside the image.
    """
    nodes = bank.features.shape[1]
    if isinstance(prompts, Mapping):
        return _snapped(prompts, bank.embedding.sizes[row].tolist(), bank.grid)
    status = np.asarray(prompts)
    if status.shape != (nodes,) or not np.isin(status, (INACTIVE, POSITIVE, NEGATIVE)).all():
        raise PPDError(
            f"Option prompts must hold {nodes} statuses (0 inactive, 1 positive, 2 negative) or be a dict "
            f"with 'points' and 'labels'; got an array of shape {status.shape}."
        )
    return status.astype(np.int8)


def _snapped(prompts: Mapping[str, Any], size: Sequence[int], grid: int) -> np.ndarray:
    """Move points to their patches."""
    if set(prompts) != {"points", "labels"}:
        raise PPDError(f"Option prompts must hold 'points' and 'labels'; got {', '.join(map(str, prompts))}.")
    points = np.asarray(prompts["points"], np.float64).reshape(-1, 2)
    labels = np.asarray(prompts["labels"]).reshape(-1)
    height, width = size
    if len(points) != len(labels) or not np.isin(labels, (0, 1)).all():
        raise PPDError("Option prompts needs one label, 1 positive or 0 negative, for each point.")
    inside = (points >= 0).all(axis=1) & (points[:, 0] < width) & (points[:, 1] < height)
    if not inside.all():
        raise PPDError(f"Point {points[~inside][0].tolist()} lies outside the {width} x {height} image.")
    cells = np.minimum((points * grid / (width, height)).astype(int), grid - 1)
    status = np.full(grid * grid, INACTIVE, np.int8)
    status[cells[:, 1] * grid + cells[:, 0]] = np.where(labels == 1, POSITIVE, NEGATIVE)
    return status
