"""One game of two agents, in phases or as a duel: what the AEC and the parallel environment share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces

from ppd_env.config import TwoAgentConfig
from ppd_env.envs.observations import Arrays, Observer
from ppd_env.envs.single_role import open_games
from ppd_env.episodes import EpisodeStarter
from ppd_env.errors import PPDError
from ppd_env.game.actions import INACTIVE, only_stop, stop_action
from ppd_env.game_batch import INVALID_PENALTY

ATTACKER, DEFENDER = "attacker_0", "defender_0"
AGENTS = (ATTACKER, DEFENDER)


class Round(NamedTuple):
    """What one round brought.

    Attributes:
        rewards: By agent.
        terminated: The game is over by its rules.
        truncated: The game is over because a step budget is used up.
        invalid: By agent, the action was illegal.
    """

    rewards: dict[str, float]
    terminated: bool
    truncated: bool
    invalid: dict[str, bool]


class TwoAgentGame:
    """Attacker against defender on one scene.

    ``phased``: the attacker plays until it stops, has no other move or has used up its budget, then the
    defender does. ``duel``: both move in every round; their moves never conflict, since one may touch only
    inactive nodes and the other only active ones. An agent that chose to stop, or whose budget is used up,
    only passes from then on; a STOP without an alternative is a pass. The game ends when neither can move
    again.

    Args:
        config: The arguments of the environment.

    Attributes:
        games: A batch of one game.
        observer: Turns it into observations.
        moving: The agents asked for a move now; the other's only legal action is STOP, meaning pass.
        left: Step budget left, by agent.
    """

    def __init__(self, config: TwoAgentConfig) -> None:
        self.config = config
        self.games = open_games(config, 1)
        self.observer = Observer(config, self.games.simulator.bank)
        self._starter = EpisodeStarter(config, self.games, attacking=True, opponent=None)
        self._only = torch.zeros(1, dtype=torch.int64)
        self.moving: tuple[str, ...] = ()
        self.left = dict.fromkeys(AGENTS, 0)
        self.total = dict.fromkeys(AGENTS, 0)
        self._retired: set[str] = set()

    @property
    def stop(self) -> int:
        """The code of STOP."""
        return stop_action(self.games.nodes)

    def reset(self, rng: np.random.Generator, options: Mapping[str, Any] | None = None) -> None:
        """Begin a game; everything random comes from ``rng``."""
        attack, defence = self._starter.start(self._only, [rng], options)
        self.total = {ATTACKER: int(attack[0]), DEFENDER: int(defence[0])}
        self.left = dict(self.total)
        self._retired = set()
        self.moving = (ATTACKER,) if self.config.schedule == "phased" else AGENTS
        self._hand_over()

    def mask(self, agent: str) -> np.ndarray:
        """Return the legal actions of an agent now, (A,) bool; who does not move may only pass."""
        if agent not in self.moving or self._done(agent):
            passing = np.zeros(self.stop + 1, bool)
            passing[self.stop] = True
            return passing
        legal: np.ndarray = self._legal(agent)[0].cpu().numpy()
        return legal

    def _legal(self, agent: str) -> torch.Tensor:
        return self.games.legal(self._only, torch.tensor([agent == ATTACKER], device=self.games.rows.device))

    def space(self) -> spaces.Dict:
        """Return the space of ``observe``."""
        mask = spaces.Box(0, 1, (self.stop + 1,), np.int8)
        return spaces.Dict({"observation": self.observer.space(with_mask=False), "action_mask": mask})

    def observe(self, agent: str) -> dict[str, Any]:
        """Return what an agent sees: ``{"observation": ..., "action_mask": (A,) int8}``."""
        seen = self.observer.observe(self.games, self._only, None)
        seen["steps_left"][:] = self.left[agent] / max(1, self.total[agent])
        observation: Arrays = {name: value[0] for name, value in seen.items()}
        return {"observation": observation, "action_mask": self.mask(agent).astype(np.int8)}

    def info(self, agent: str, *, invalid: bool = False) -> dict[str, Any]:
        """Return an agent's info; ``invalid`` tells whether its last action was illegal."""
        games, row = self.games, int(self.games.rows[0])
        return {
            "action_mask": self.mask(agent).astype(np.int8),
            "invalid_action": invalid,
            "moving": agent in self.moving and not self._done(agent),
            "dice": float(games.dice[0]),
            "initial_dice": float(games.initial_dice[0]),
            "predicted_iou": float(games.predicted_iou[0]),
            "active_prompts": int((games.status[0] != INACTIVE).sum()),
            "steps": self.total[agent],
            "scene": row,
            "scene_name": games.simulator.bank.names[row],
        }

    def turn(self) -> str:
        """Return how far both agents are, for a picture's caption."""
        spent = {agent: self.total[agent] - self.left[agent] for agent in AGENTS}
        return "   ".join(f"{agent.split('_')[0]} {spent[agent]}/{self.total[agent]}" for agent in AGENTS)

    def play(self, actions: Mapping[str, int]) -> Round:
        """Play one round.

        Args:
            actions: By agent; those of agents that do not move count as passes if they are STOP.

        Returns:
            The round.

        Raises:
            PPDError: An action is illegal and ``invalid_action`` is ``"raise"``, or outside [0, 2N].
        """
        before = float(self.games.dice[0])
        status, invalid = self.games.status.clone(), dict.fromkeys(AGENTS, False)
        movers = self.moving
        for agent in AGENTS:
            action = int(actions.get(agent, self.stop))
            changed, invalid[agent] = self._preview(agent, action)
            if changed is not None:
                status = torch.where(changed[1], changed[0], status)
        if self.config.invalid_action == "raise" and any(invalid.values()):
            listed = ", ".join(f"{actions[a]} of {a}" for a in AGENTS if invalid[a])
            raise PPDError(f"Illegal action(s) {listed}: choose where the action mask is 1.")
        for agent in movers:
            self._spend(agent, int(actions.get(agent, self.stop)))
        self.games.place(self._only, status)
        rewards = self._rewards(float(self.games.dice[0]) - before, movers, invalid)
        over = self._hand_over()
        truncated = over and any(self._spent(agent) for agent in self.moving)
        return Round(rewards, over and not truncated, truncated, invalid)

    def _preview(self, agent: str, action: int) -> tuple[tuple[torch.Tensor, torch.Tensor] | None, bool]:
        """Return (status, changed) after an action, None if it changes nothing, and whether it is illegal."""
        if not 0 <= action <= self.stop:
            raise PPDError(f"Actions must lie in [0, {self.stop}], got {action} of {agent}.")
        if not self.mask(agent)[action]:
            return None, True
        if action == self.stop:
            return None, False
        attacking = torch.tensor([agent == ATTACKER], device=self.games.rows.device)
        move = self.games.preview(self._only, torch.tensor([action]), attacking)
        return (move.status, move.changed), False

    def _spend(self, agent: str, action: int) -> None:
        """Count a mover's step, and retire it if it stopped by choice."""
        if self._done(agent):
            return
        mask = self.mask(agent)
        self.left[agent] -= 1
        if action == self.stop and mask[action] and mask[:-1].any():
            self._retired.add(agent)

    def _rewards(
        self, change: float, movers: tuple[str, ...], invalid: Mapping[str, bool]
    ) -> dict[str, float]:
        """Share out a Dice change, zero-sum unless only who moves is rewarded."""
        rewards = {ATTACKER: -change, DEFENDER: change}
        for agent in AGENTS:
            if self.config.reward_scope == "own_phase" and agent not in movers:
                rewards[agent] = 0.0
            if self.config.invalid_action == "penalty" and invalid[agent]:
                rewards[agent] -= INVALID_PENALTY
        return rewards

    def _done(self, agent: str) -> bool:
        return agent in self._retired or self.left[agent] == 0

    def _spent(self, agent: str) -> bool:
        """Tell whether only the budget keeps an agent from moving on."""
        return self.left[agent] == 0 and agent not in self._retired and not self._stuck(agent)

    def _stuck(self, agent: str) -> bool:
        return bool(only_stop(self._legal(agent))[0])

    def _hand_over(self) -> bool:
        """Decide who moves next; return whether the game is over."""
        if self.config.schedule == "duel":
            return all(self._done(agent) or self._stuck(agent) for agent in AGENTS)
        if self.moving == (ATTACKER,) and (self._done(ATTACKER) or self._stuck(ATTACKER)):
            self.moving = (DEFENDER,)
        return self.moving == (DEFENDER,) and (self._done(DEFENDER) or self._stuck(DEFENDER))

    def __getstate__(self) -> dict[str, Any]:
        """Return the configuration and what changes in play; shared scenes and models are left out."""
        state = {name: value.cpu().clone() for name, value in self.games.state_dict().items()}
        kept = {name: getattr(self, name) for name in ("moving", "left", "total", "_retired")}
        return {"config": self.config, "games": state, **kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the shared parts again and go on with the game."""
        state = dict(state)
        self.__init__(state.pop("config"))  # type: ignore[misc]
        self.games.load_state_dict(state.pop("games"))
        self.__dict__.update(state)
