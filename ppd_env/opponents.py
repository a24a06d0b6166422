"""Who moves when the agent does not: random, oracle, or anything importable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from ppd_env.errors import ConfigError
from ppd_env.game.actions import NEGATIVE, encode, stop_action
from ppd_env.game_batch import GameBatch
from ppd_env.uris import Uri, parse_uri

ORACLE_POOL = 48
"""Random legal nodes an attacking oracle tries per step; a full scan gained nothing at ten times the cost."""


@runtime_checkable
class Opponent(Protocol):
    """Chooses moves for either role; which one is asked for stands in ``games.attacking``.

    An opponent may set ``blind = True`` to say that it never looks at masks, Dice or feedback while it plays;
    its moves are then played without decoding. With ``looks_once = True`` beside it, it wants
    ``games.initial_mask``: the mask its game begins with is then decoded, and no other.
    """

    def act(self, games: GameBatch, which: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """Choose one legal action for each of k games.

        Args:
            games: All games.
            which: (k,) int64, those asked about.
            rngs: k generators, one per game: the only source of randomness.

        Returns:
            (k,) int64.
        """
        ...


class RandomOpponent:
    """Draws uniformly among the legal candidates, and stops only when there is none.

    Args:
        integers: Draw a candidate's place as an integer, as the tables do, and not as a share of their
            number, as episodes do. Both are equally likely; results of either rest on their stream of draws.
    """

    blind = True

    def __init__(self, integers: bool = False) -> None:
        self.integers = integers

    def act(self, games: GameBatch, which: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """Choose one action per game; see ``Opponent.act``."""
        candidates = games.legal(which)[:, :-1]
        counts = candidates.sum(dim=1)
        places = [self._place(count, rng) for count, rng in zip(counts.tolist(), rngs, strict=True)]
        nth = torch.tensor(places, device=candidates.device)
        chosen = ((candidates.cumsum(dim=1) > nth[:, None]) & candidates).to(torch.int8).argmax(dim=1)
        return torch.where(counts > 0, chosen, stop_action(games.nodes))

    def _place(self, count: int, rng: np.random.Generator) -> int:
        """Draw the place of one of ``count`` candidates."""
        if self.integers:
            return int(rng.integers(count)) if count else 0
        return int(rng.random() * count)


class OracleOpponent:
    """Tries candidates on the true Dice and takes the best single step; stops when every one costs it.

    Attacks try both signs of a few random legal nodes, defences every active prompt; ties go to the first.

    Args:
        pool: Random legal nodes tried per attack step.
        idle: Take steps that change nothing: of two prompts that each spoil the mask alone, the first to go
            has no effect. The oracles of the tables do not, and stop where no step gains.
    """

    blind = False

    def __init__(self, pool: int = ORACLE_POOL, idle: bool = True) -> None:
        self.pool, self.idle = pool, idle

    def act(self, games: GameBatch, which: Tensor, rngs: Sequence[np.random.Generator]) -> Tensor:
        """Choose one action per game; see ``Opponent.act``."""
        legal = games.legal(which)
        stop = stop_action(games.nodes)
        listed = [
            self._tried(row, games.status[game], bool(games.attacking[game]), rng)
            for row, game, rng in zip(legal, which, rngs, strict=True)
        ]
        width = max(1, *(len(one) for one in listed))
        actions = torch.full((len(which), width), stop, dtype=torch.int64, device=legal.device)
        for row, one in zip(actions, listed, strict=True):
            row[: len(one)] = one
        reward = games.branch(actions, which).reward.masked_fill(actions == stop, -torch.inf)
        best, column = reward.max(dim=1)
        chosen = actions.gather(1, column[:, None]).squeeze(1)
        useless = best < 0 if self.idle else best <= 0
        return torch.where(useless & legal[:, -1], stop, chosen)

    def _tried(self, legal: Tensor, status: Tensor, attacking: bool, rng: np.random.Generator) -> Tensor:
        """Return the legal candidates of one game to try, (m,) int64."""
        if not attacking:
            return legal[:-1].nonzero().squeeze(1)
        nodes = len(status)
        free = (legal[:nodes] | legal[nodes:-1]).nonzero().squeeze(1).cpu().numpy()
        drawn = torch.from_numpy(rng.permutation(free)[: self.pool]).to(legal.device)
        both = torch.cat([drawn, encode(NEGATIVE, drawn, nodes).to(legal.device)])
        return both[legal[both]]


def play_phase(
    games: GameBatch, which: Tensor, opponent: Opponent, rngs: Sequence[np.random.Generator]
) -> None:
    """Let an opponent play the games ``which`` until each role's episode is over.

    After a blind opponent, Dice and masks are those from before the phase, until the next ``begin``.

    Args:
        games: All games, those in ``which`` begun.
        which: (k,) int64.
        opponent: Makes the moves.
        rngs: k generators.
    """
    blind = getattr(opponent, "blind", False)
    live = list(range(len(which)))
    while live:
        moving = which[torch.tensor(live, device=which.device)]
        actions = opponent.act(games, moving, [rngs[i] for i in live])
        if blind:
            over = games.skip(actions, moving)
        else:
            result = games.step(actions, moving)
            over = result.terminated | result.truncated
        live = [i for i, done in zip(live, over.tolist(), strict=True) if not done]


OWN = ("random", "oracle")
"""Opponents that are part of this package; every other one is imported from the module its URI names."""


def is_own_opponent(uri: str) -> bool:
    """Tell whether a URI names one of ``OWN``, for which nothing is imported."""
    parsed = parse_uri(uri)
    return parsed.scheme in OWN and not parsed.path


_loaded: dict[str, Opponent] = {}


def load_opponent(uri: str) -> Opponent:
    """Return the opponent a URI names, loaded once per process.

    Args:
        uri: ``"random"``, ``"oracle"``, ``"oracle?pool=48"``, or ``"module:callable?key=value"``: the
            callable is imported, called with the keys as keyword arguments (strings), and returns an
            ``Opponent``.

    Returns:
        The opponent.

    Raises:
        ConfigError: There is no such opponent.
    """
    if uri not in _loaded:
        _loaded[uri] = _load(parse_uri(uri))
    return _loaded[uri]


def _load(uri: Uri) -> Opponent:
    if uri.scheme == "random" and not uri.path:
        uri.require_keys(())
        return RandomOpponent()
    if uri.scheme == "oracle" and not uri.path:
        uri.require_keys(("pool",))
        pool = uri.integer("pool", ORACLE_POOL)
        if pool < 1:
            raise ConfigError(f"{uri.text!r}: pool must be at least 1.")
        return OracleOpponent(pool)
    if not uri.path:
        raise ConfigError(
            f"Unknown opponent {uri.text!r}; known ones: random, oracle, module:callable?path=..."
        )
    return _import(uri)


def _import(uri: Uri) -> Opponent:
    """Import ``module:callable`` and call it with the query."""
    factory = uri.import_callable("opponent", ("oracle", "random"))
    try:
        opponent = factory(**uri.query)
    except TypeError as error:  # of unknown keys
        raise ConfigError(f"Opponent {uri.text!r} cannot be made: {error}.") from error
    if not isinstance(opponent, Opponent):
        raise ConfigError(f"Opponent {uri.text!r}: {type(opponent).__name__} has no act(games, which, rngs).")
    return opponent
