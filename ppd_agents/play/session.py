"""A person at the game: where the cursor is, what a command does, who answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import gymnasium
import numpy as np
import torch

import ppd_env  # noqa: F401 (registers PPD-v0)
from ppd_agents.shipped import HUB
from ppd_env.config import EnvConfig
from ppd_env.envs.gymnasium_env import PointPromptEnv
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE, Role, encode, stop_action
from ppd_env.opponents import Opponent, load_opponent, play_phase
from ppd_env.scenes.bank import open_bank

if TYPE_CHECKING:
    from ppd_agents.play_command import Play

KEYS = {
    "up": "up",
    "down": "down",
    "left": "left",
    "right": "right",
    "space": "act",
    "return": "act",
    "p": "positive",
    "n": "negative",
    "s": "stop",
    "l": "legal",
    "r": "new",
    "q": "quit",
    "escape": "quit",
}
"""Commands by the name of a key, as pygame names keys; terminals name theirs alike."""

HELP: dict[Role, str] = {
    "attacker": "arrows move  p or space: positive  n: negative  s: stop  l: legal moves  r: new scene  "
    "q: quit",
    "defender": "arrows move  space: remove the prompt  s: stop  l: legal moves  r: new scene  q: quit",
}

_WAYS = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}


def opponent_uri(name: str, role: Role) -> str:
    """Return the URI of an opponent: what a word such as ``mini`` stands for.

    Args:
        name: ``random``, ``oracle``, any other opponent's URI, or the name or folder of trained agents.
        role: What the opponent plays. An attacker plays all its steps, a defender stops when nothing helps.
    """
    named = name.partition("?")[0] in ("random", "oracle")
    if named or (":" in name and "/" not in name.partition(":")[0] and not name.startswith(HUB)):
        return name
    stop = "false" if role == "attacker" else "true"
    return f"ppd_agents.defender:load_opponent?path={quote(name)}&role={role}&stop={stop}"


def make_env(options: Play, opponent: str) -> gymnasium.Env:
    """Return the environment of a game: PPD-v0, which draws its pictures.

    Args:
        options: Role, scenes, models, grid and steps.
        opponent: URI of who attacks before a defender begins.

    Raises:
        PPDError: An option is impossible, or something it names cannot be opened.
    """
    arguments: dict[str, Any] = {
        "role": options.role,
        "opponent": opponent,
        "scenes": options.scenes,
        "segmenter": options.segmenter,
        "features": options.features,
        "grid": options.grid,
        "attack_steps": options.steps,
        "defence_steps": options.steps,
    }
    config = EnvConfig.from_kwargs(**arguments)
    # Scenes are opened once per process; the environment finds them open, and here a bar shows the wait.
    open_bank(config.scenes, config.segmenter, config.features_uri, config.grid, config.device, progress=True)
    return gymnasium.make("PPD-v0", disable_env_checker=True, render_mode="rgb_array", **arguments)


class Session:
    """One person, one game after another.

    A defender meets the prompts an opponent has attacked; an attacker's prompts are defended by the opponent
    when the attack is over.

    Args:
        options: What is played.

    Attributes:
        cursor: (column, row) of the patch the next command is about.
        shows_legal: Legal moves are to be marked.
        over: The game is over.
        quit: The person has had enough.
        says: One sentence about what just happened.
        games_played: Number of games that ended.

    Raises:
        PPDError: An option is impossible, or something it names cannot be opened.
    """

    def __init__(self, options: Play) -> None:
        self.role: Role = options.role
        other: Role = "attacker" if self.role == "defender" else "defender"
        uri = opponent_uri(options.opponent, other)
        self._opponent: Opponent = load_opponent(uri)
        self.env = make_env(options, uri if self.role == "defender" else "random")
        self.games = cast(PointPromptEnv, self.env.unwrapped).play.games
        self.grid = options.grid
        self.cursor = (options.grid // 2, options.grid // 2)
        self.shows_legal = self.over = self.quit = False
        self.games_played = 0
        self._rng = np.random.default_rng(options.seed)
        self._seed: int | None = options.seed
        self.says = ""
        self.begin()

    @property
    def node(self) -> int:
        """The node under the cursor."""
        return self.cursor[1] * self.grid + self.cursor[0]

    @property
    def status(self) -> np.ndarray:
        """The prompts now, (N,) int8."""
        found: np.ndarray = self.games.status[0].cpu().numpy().copy()  # the games go on
        return found

    @property
    def dice(self) -> float:
        """Dice now."""
        return float(self.games.dice[0])

    def legal(self) -> np.ndarray:
        """Return the legal actions now, (2N + 1,) bool."""
        mask: np.ndarray = self.env.get_wrapper_attr("action_masks")()
        return mask

    def legal_nodes(self) -> np.ndarray:
        """Return the nodes that some legal action names, (N,) bool; none when the game is over."""
        legal: np.ndarray = np.any(self.legal()[:-1].reshape(2, -1), axis=0)
        return np.zeros_like(legal) if self.over else legal

    def begin(self) -> None:
        """Begin a game on another scene."""
        _, info = self.env.reset(seed=self._seed)
        self._seed = None  # only the first reset seeds; then the generator goes on
        self.over = False
        attacked = f", {info['ideal_dice']:.2f} before the attack" if "ideal_dice" in info else ""
        self.says = f"You are the {self.role}. {info['scene_name']}: Dice {info['dice']:.2f}{attacked}."

    def command(self, word: str) -> None:
        """Do what a command says.

        Args:
            word: One of the values of ``KEYS``; others are ignored.
        """
        if word in _WAYS:
            step = _WAYS[word]
            self.point_at(self.cursor[0] + step[0], self.cursor[1] + step[1])
        elif word == "legal":
            self.shows_legal = not self.shows_legal
        elif word == "quit":
            self.quit = True
        elif word == "new":
            self.begin()
        elif self.over:
            self.says = "This game is over: r for a new scene, q to quit."
        elif word == "stop":
            self._play(stop_action(self.games.nodes), "You stop.")
        elif word in ("act", "positive", "negative"):
            self._prompt(word)

    def point_at(self, column: int, row: int) -> None:
        """Move the cursor to a patch, or to the nearest one inside the grid."""
        last = self.grid - 1
        self.cursor = (min(max(column, 0), last), min(max(row, 0), last))

    def _prompt(self, word: str) -> None:
        """Add or remove the prompt under the cursor, or say why that cannot be."""
        found = int(self.status[self.node])
        if self.role == "attacker":
            sign = NEGATIVE if word == "negative" else POSITIVE
            why = "This patch has a prompt already." if found else "This prompt would have the wrong sign."
            done = "negative prompt added" if sign == NEGATIVE else "positive prompt added"
        else:
            sign = found
            why = "The last positive prompt stays." if found else "There is no prompt in this patch."
            done = "prompt removed"
        action = int(encode(sign, self.node, self.games.nodes))
        if (self.role == "defender" and found == INACTIVE) or not self.legal()[action]:
            self.says = why
            return
        self._play(action, done)

    def _play(self, action: int, done: str) -> None:
        before = self.dice
        *_, terminated, truncated, _ = self.env.step(action)
        self.says = f"{done[0].upper()}{done[1:].rstrip('.')}: Dice {before:.2f} -> {self.dice:.2f}."
        if terminated or truncated:
            self._end()

    def _end(self) -> None:
        self.over = True
        self.games_played += 1
        began, ended = float(self.games.initial_dice[0]), self.dice
        self.says = f"Over: you brought Dice from {began:.2f} to {ended:.2f}"
        if self.role == "attacker":
            one = self.games.everyone()
            self.games.change_role(one, self.games.steps_total.clone(), torch.zeros(1, dtype=torch.bool))
            play_phase(self.games, one, self._opponent, [self._rng])
            self.games.begin(
                one,
                self.games.rows.clone(),
                self.games.status.clone(),
                self.games.steps_total.clone(),
                torch.zeros(1, dtype=torch.bool),
            )
            self.says += f", and the defence left it at {self.dice:.2f}"
        self.says += ". r: new scene, q: quit."

    def close(self) -> None:
        """Let go of the environment."""
        self.env.close()
