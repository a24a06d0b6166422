"""What can be done with a picture: segment, propose, defend, attack; it knows nothing of the web."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
import torch

from ppd_agents.defender import Defender, Verdict
from ppd_agents.demo.pictures import OneScene, Picture
from ppd_agents.dqn.agent import Agent, GreedyAgent
from ppd_agents.methods.contract import SeenReference, SeenTarget, at_native_size, decode, seen
from ppd_agents.prompt_sets import Labels, Points, check_prompts
from ppd_env.episodes import given_prompts
from ppd_env.errors import PPDError
from ppd_env.features.contract import FeatureExtractor
from ppd_env.features.registry import load_features
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE
from ppd_env.game_batch import GameBatch
from ppd_env.metrics import dice
from ppd_env.prompting.pair import as_points
from ppd_env.prompting.prompters import load_prompter
from ppd_env.rendering import Frame, draw
from ppd_env.scenes.bank import bank_of
from ppd_env.scenes.scene import RawScene
from ppd_env.segmenters.contract import Segmenter
from ppd_env.simulator import Simulator

LARGEST_BUDGET = 60
"""Most steps of one attack or defence."""

MOST_POINTS = 2000
"""Most prompts of one picture."""


@dataclass(frozen=True, eq=False)
class View:
    """A picture under some prompts.

    Args:
        points: (n, 2) (x, y) in pixels, float64 where they were given, float32 in games.
        labels: (n,) int64, 1 positive, 0 negative.
        mask: (H, W) bool, what the segmenter makes of them.
        predicted_iou: The segmenter's own estimate; 0 without prompts.
        dice: Against the ground truth at native size, where that is known.
        touched: (k, 2) of the same kind, the points that the last step added or removed.
        touched_labels: (k,) int64.
        reason: Why, in words; empty where nobody says.
    """

    points: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    predicted_iou: float
    dice: float | None
    touched: np.ndarray
    touched_labels: np.ndarray
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Models:
    """Everything that is loaded once.

    Args:
        segmenter: The segmenter.
        features: Describes the patches for prompts from a reference.
        defender: Cleans prompts.
        attacker: Spoils them.
        attacker_features: What the attacker was trained on.

    Raises:
        PPDError: The attacker is a defender, or its features are not those it was trained on.
    """

    segmenter: Segmenter
    features: FeatureExtractor
    defender: Defender
    attacker: Agent
    attacker_features: FeatureExtractor

    def __post_init__(self) -> None:
        """Refuse an attacker that would not know what it looks at."""
        if self.attacker.role != "attacker":
            raise PPDError("The agent named as attacker is a defender; name a trained attacker.")
        if self.attacker.features_signature != self.attacker_features.signature:
            raise PPDError(
                f"The attacker was trained on other features {self.attacker.features!r} than those installed "
                "here: train it again, or install the version it came with."
            )

    @cached_property
    def matched_defender(self) -> Defender:
        """The defender by its rule for prompts from a one-shot prompter; it shares the weights."""
        return Defender(self.defender.agent.for_matched(), self.segmenter.device)


def load_models(segmenter: Segmenter, features: str | None, defender: Defender, attacker: Agent) -> Models:
    """Complete the models.

    Args:
        segmenter: The segmenter.
        features: URI of the features that references are matched by; the defender's where None, and plain
            ``"segmenter"`` means those of ``segmenter``.
        defender: The defender.
        attacker: The attacker, on the same device.

    Raises:
        PPDError: The features cannot be loaded, or the attacker cannot be used.
    """
    device = segmenter.device
    if features == "segmenter":
        features = f"segmenter:{segmenter.uri}"
    described = defender.extractor if features is None else load_features(features, device)
    return Models(segmenter, described, defender, attacker, load_features(attacker.features, device))


class Studio:
    """Works on one picture at a time; not to be used from two threads at once.

    Args:
        models: All models.
        seed: Of prompters that draw.
    """

    def __init__(self, models: Models, seed: int = 0) -> None:
        self.models, self._seed = models, seed

    def prepare(self, picture: Picture) -> None:
        """Let segmenter and defender look at a picture, so that clicks are answered at once."""
        self._target(picture)

    def segment(self, picture: Picture, points: Points, labels: Labels) -> View:
        """Segment under the given prompts.

        Args:
            picture: The picture.
            points: (n, 2) pixels (x, y); none give an empty mask.
            labels: (n,) 1 positive, 0 negative.

        Raises:
            PPDError: A prompt cannot be used.
        """
        return self._view(picture, *self._checked(picture, points, labels))

    def propose(self, picture: Picture, prompter: str, reference: Picture | None) -> View:
        """Let a prompter propose prompts, and segment under them.

        Args:
            picture: The picture.
            prompter: A name in ``PROMPTERS``.
            reference: A picture with its mask; ``ideal`` and ``random`` need none.

        Raises:
            PPDError: There is no such prompter, or it lacks a reference or a ground truth.
        """
        models, grid = self.models, self.models.defender.agent.grid
        embedding, features = seen(picture.image, picture.encoder(models.segmenter, models.features, grid))
        target = SeenTarget(features, picture.mask, embedding=embedding)
        references: Sequence[SeenReference] = ()
        if reference is not None:
            scene = reference.scene()
            encoder = reference.encoder(models.segmenter, models.features, grid)
            embedding, features = seen(reference.image, encoder)
            references = (SeenReference(features, scene.mask, scene.void, embedding=embedding),)
        status = load_prompter(prompter)(references, target, np.random.default_rng(self._seed))
        return self._view(picture, *as_points(status, picture.size))

    def defend(
        self, picture: Picture, points: Points, labels: Labels, budget: int, *, matched: bool = False
    ) -> Iterator[View | str]:
        """Let the defender remove prompts.

        Args:
            picture: The picture.
            points: (n, 2) pixels (x, y), n at least 1.
            labels: (n,) 1 positive, 0 negative.
            budget: Most steps.
            matched: The prompts come from a one-shot prompter: the defender goes by its rule for them
                (``Agent.for_matched``) and to its end; where the budget is short, a step removes several.

        Yields:
            The view before, one after each step, and why it ended.

        Raises:
            PPDError: A prompt cannot be used, or there is none.
        """
        where, signs = self._checked(picture, points, labels)
        if not len(signs):
            raise PPDError("There is nothing to defend. Set at least one point.")
        models = self.models
        defender = models.matched_defender if matched else models.defender
        found = defender.refine_seen(self._target(picture), where, signs, models.segmenter)
        yield self._view(picture, where, signs)
        kept = np.ones(len(signs), bool)
        taken = max((verdict.step or 0 for verdict in found.removed), default=0)
        at_once = max(1, math.ceil(taken / budget)) if matched else 1
        by_step = groupby(found.removed, key=lambda verdict: ((verdict.step or 1) - 1) // at_once)
        steps = [list(group) for _, group in by_step]
        for removed in steps[:budget]:
            gone = [verdict.index for verdict in removed]
            kept[gone] = False
            touched = (where[gone], signs[gone], _why(removed))
            yield self._view(picture, where[kept], signs[kept], *touched)
        yield found.stopped if len(steps) <= budget else f"the budget of {budget} steps is used up"

    def attack(self, picture: Picture, points: Points, labels: Labels, budget: int) -> Iterator[View | str]:
        """Let the attacker add prompts, as in the game: given prompts move to the centres of their patches.

        Args:
            picture: The picture, with its ground truth.
            points: (n, 2) pixels (x, y); where there is none, the attack starts from ideal prompts.
            labels: (n,) 1 positive, 0 negative.
            budget: Steps.

        Yields:
            The view before, one after each step, and why it ended.

        Raises:
            PPDError: The ground truth is not known, or a prompt cannot be used.
        """
        where, signs = self._checked(picture, points, labels)
        simulator = self._simulator(picture)
        games, one = GameBatch(simulator, 1), torch.zeros(1, dtype=torch.int64)
        rng = np.random.default_rng(self._seed)
        if len(signs):
            status = given_prompts({"points": where, "labels": signs}, simulator.bank, 0)
        else:
            target = SeenTarget(simulator.bank.features[0], picture.mask, embedding=simulator.bank.embedding)
            status = load_prompter("ideal")((), target, rng)
        steps, role = torch.tensor([budget]), torch.ones(1, dtype=torch.bool)
        games.begin(one, one, torch.from_numpy(status)[None], steps, role)
        yield self._game_view(picture, games)
        attacker, over = GreedyAgent(self.models.attacker, stop=False), False
        while not over:
            result = games.step(attacker.act(games, games.everyone(), [rng]))
            over = bool(result.terminated | result.truncated)
            yield self._game_view(picture, games)
        yield f"the budget of {budget} steps is used up" if bool(result.truncated) else "every patch is taken"

    def overlay(self, picture: Picture, points: Points, labels: Labels) -> np.ndarray:
        """Draw prompts and mask, (height, width, 3) uint8 RGB; see ``rendering.draw``."""
        view = self.segment(picture, points, labels)
        truth = picture.mask if picture.mask is not None else np.zeros_like(view.mask)
        score = "" if view.dice is None else f"Dice {view.dice:.3f}   "
        caption = (
            f"{score}predicted IoU {view.predicted_iou:.3f}   prompts {len(view.labels)}",
            picture.name,
        )
        status = np.where(view.labels == 1, POSITIVE, NEGATIVE).astype(np.int8)
        scene = RawScene(picture.name, picture.image, truth, "")
        return draw(
            Frame(scene, view.mask, view.points.astype(np.float32), status, status == INACTIVE, caption)
        )

    def _checked(self, picture: Picture, points: Points, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
        """Return prompts as arrays: points (n, 2) float64 and labels (n,) int64."""
        if len(labels) > MOST_POINTS:
            raise PPDError(f"{len(labels)} prompts are too many; at most {MOST_POINTS}.")
        if not len(points) and not len(labels):
            return np.zeros((0, 2)), np.zeros(0, np.int64)
        found = check_prompts(points, labels, picture.size, self.models.defender.agent.grid)
        return found.points, found.labels

    def _target(self, picture: Picture) -> SeenTarget:
        """Return the picture as segmenter and defender see it."""
        models = self.models
        encoder = picture.encoder(models.segmenter, models.defender.extractor, models.defender.agent.grid)
        embedding, features = seen(picture.image, encoder)
        return SeenTarget(features, picture.mask, embedding=embedding)

    def _view(
        self,
        picture: Picture,
        points: np.ndarray,
        labels: np.ndarray,
        touched: np.ndarray | None = None,
        touched_labels: np.ndarray | None = None,
        reason: str = "",
    ) -> View:
        """Segment under checked prompts."""
        embedding = self._target(picture).embedding
        logits, predicted = decode(self.models.segmenter, embedding, points, labels)
        mask = at_native_size(self.models.segmenter, logits[0], picture.size)
        none = (np.zeros((0, 2)), np.zeros(0, np.int64))
        where, signs = none if touched is None or touched_labels is None else (touched, touched_labels)
        return View(points, labels, mask, float(predicted[0]), _dice(picture, mask), where, signs, reason)

    def _game_view(self, picture: Picture, games: GameBatch) -> View:
        """Read the state of a game."""
        status = games.status[0].cpu().numpy()
        changed = np.where(games.changed[0].cpu().numpy(), status, INACTIVE)
        mask = games.simulator.masks_at_native_size(games.rows, games.logits)[0]
        points, labels = as_points(status, picture.size)
        where, signs = as_points(changed, picture.size)
        predicted = float(games.predicted_iou[0])
        return View(points, labels, mask, predicted, _dice(picture, mask), where, signs)

    def _simulator(self, picture: Picture) -> Simulator:
        """Return the picture as a bank of one scene on which games can be played."""
        models = self.models
        if picture.bank is None:
            encoder = picture.encoder(models.segmenter, models.attacker_features, models.attacker.grid)
            picture.bank = bank_of(OneScene(picture.scene()), encoder, cache=False)
        return Simulator(picture.bank, models.segmenter)


def _dice(picture: Picture, mask: np.ndarray) -> float | None:
    return None if picture.mask is None else dice(mask, picture.mask, picture.void)


def _why(removed: list[Verdict]) -> str:
    return removed[0].reason if removed else ""
