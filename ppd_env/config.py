"""The arguments of the environments: frozen, checked once. Importing this module loads no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

from ppd_env.errors import ConfigError

STARTS = ("ideal", "ideal+attack", "matching", "noise")
Steps = int | tuple[int, int]
"""A number of steps, or the inclusive bounds it is drawn between for each episode."""

ConfigT = TypeVar("ConfigT", bound="GameConfig")

CHOICES: dict[str, tuple[Any, ...]] = {
    "role": ("attacker", "defender"),
    "start": (None, *STARTS),
    "layout": ("jittered", "lattice"),
    "label_mode": ("free", "truth"),
    "invalid_action": ("noop", "penalty", "raise"),
    "edges": ("knn", "dense", "none"),
    "observation": ("full", "compact"),
    "schedule": ("phased", "duel"),
    "reward_scope": ("all", "own_phase"),
    "allow_stop": (True, False),
    "feedback": (True, False),
}
SMALLEST = {"grid": 3, "prompts_per_step": 1, "max_batch": 1}
TEXTS = ("scenes", "segmenter", "features", "opponent", "device")


@dataclass(frozen=True, kw_only=True)
class GameConfig:
    """What every environment takes.

    Args:
        scenes: URI of the scenes.
        segmenter: URI of the segmenter.
        features: URI of the patch features; ``"segmenter"`` takes the segmenter's own embedding.
        grid: g, patches per side, at least 3; N = g * g nodes.
        start: What an episode starts from: ``"ideal"``, ``"ideal+attack"`` (the opponent's attack on ideal
            prompts), ``"matching"`` or ``"noise"``; None is the role's own, see ``start_state``.
        layout: Of ideal prompts, ``"jittered"`` or ``"lattice"``.
        attack_steps: Step budget of an attack, or [lo, hi] to draw it for each episode.
        defence_steps: The same of a defence. Where both are given alike, one draw serves both.
        prompts_per_step: k, prompts one action touches.
        label_mode: ``"free"``: an attacker may give a node either sign; ``"truth"``: only the true one.
        allow_stop: STOP is always legal; otherwise only where nothing else is.
        invalid_action: ``"noop"``, ``"penalty"`` (0.1 off the reward) or ``"raise"``.
        edges: ``"knn"``, ``"dense"`` or ``"none"``: how observations show the dual-space graph.
        feedback: Show the segmenter's own mask and predicted IoU in observations.
        observation: ``"full"``, or ``"compact"``: a scene index instead of what never changes in a scene.
        device: Torch device of scenes and segmenter.
        max_batch: Prompt sets decoded at once; None: 64, on a GPU with memory for them up to 256.

    Raises:
        ConfigError: A value is impossible.
    """

    scenes: str = "shapes://train?count=1000&seed=0"
    segmenter: str = "mini"
    features: str = "mini"
    grid: int = 16
    start: str | None = None
    layout: str = "jittered"
    attack_steps: Steps = 20
    defence_steps: Steps = 20
    prompts_per_step: int = 1
    label_mode: str = "free"
    allow_stop: bool = True
    invalid_action: str = "noop"
    edges: str = "knn"
    feedback: bool = False
    observation: str = "full"
    device: str = "cpu"
    max_batch: int | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in CHOICES:
                _check_choice(field.name, value)
            elif field.name in SMALLEST and (value is not None or field.default is not None):
                _check_count(field.name, value, SMALLEST[field.name])
            elif field.name in TEXTS:
                _check_text(field.name, value)
        for name in ("attack_steps", "defence_steps"):
            object.__setattr__(self, name, _checked_steps(name, getattr(self, name)))

    @classmethod
    def from_kwargs(cls: type[ConfigT], **kwargs: Any) -> ConfigT:
        """Build the configuration from keyword arguments.

        Raises:
            ConfigError: A name is unknown or a value impossible.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in kwargs:
            if name not in known:
                raise ConfigError(f"Unknown argument {name!r}; known ones: {', '.join(sorted(known))}.")
        return cls(**kwargs)

    @property
    def features_uri(self) -> str:
        """The URI of the features, ``"segmenter"`` spelt out."""
        return f"segmenter:{self.segmenter}" if self.features == "segmenter" else self.features

    @property
    def start_state(self) -> str:
        """What an episode starts from: ``start``, or ``"ideal"`` where that is None."""
        return self.start or "ideal"


@dataclass(frozen=True, kw_only=True)
class EnvConfig(GameConfig):
    """What ``gymnasium.make("PPD-v0")`` takes.

    Args:
        role: Whose moves the agent makes, ``"attacker"`` or ``"defender"``.
        opponent: Who attacks first when a start holds an attack: ``"random"``, ``"oracle"`` or
            ``"module:callable?path=..."``.
    """

    role: str = "defender"
    opponent: str = "random"

    @property
    def start_state(self) -> str:
        """What an episode starts from: ``start``, or the role's own where that is None."""
        return self.start or ("ideal" if self.role == "attacker" else "ideal+attack")

    @property
    def steps(self) -> Steps:
        """The step budget of the role."""
        return self.attack_steps if self.role == "attacker" else self.defence_steps


@dataclass(frozen=True, kw_only=True)
class TwoAgentConfig(GameConfig):
    """What the PettingZoo environments take.

    Args:
        schedule: ``"phased"``: the attacker's phase, then the defender's; ``"duel"``: both move at once.
        reward_scope: ``"all"``: zero-sum at every step; ``"own_phase"``: only who moved is rewarded.

    Raises:
        ConfigError: ``start`` holds an attack: here the attacker is a player.
    """

    schedule: str = "phased"
    reward_scope: str = "all"

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        if self.start == "ideal+attack":
            raise ConfigError(
                "start='ideal+attack' needs an opponent; a game of two agents starts from 'ideal'."
            )


def _check_choice(name: str, value: Any) -> None:
    allowed = CHOICES[name]
    if not any(value is known or (isinstance(value, str) and value == known) for known in allowed):
        listed = ", ".join(repr(known) for known in allowed)
        raise ConfigError(f"{name} must be one of {listed}; got {value!r}.")


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name} must be a non-empty string; got {value!r}.")


def _check_count(name: str, value: Any, smallest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
        raise ConfigError(f"{name} must be an integer of at least {smallest}; got {value!r}.")


def _checked_steps(name: str, value: Any) -> Steps:
    """Return steps as an int or a pair."""
    if isinstance(value, (list, tuple)):
        if len(value) != 2:
            raise ConfigError(f"{name} must be an integer or [lo, hi]; got {value!r}.")
        for bound in value:
            _check_count(name, bound, 1)
        if value[0] > value[1]:
            raise ConfigError(f"{name}: the lower bound of {list(value)} is above the upper one.")
        return value[0], value[1]
    _check_count(name, value, 1)
    return int(value)
