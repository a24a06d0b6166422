"""Plug-and-play inference: clean the point prompts of any image, for any segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ppd_agents.cleaning import Cleaning, Witness
from ppd_agents.dqn.agent import Agent, GreedyAgent
from ppd_agents.methods.contract import SeenTarget
from ppd_agents.prompt_sets import Labels, Points, PromptSet, check_image, check_prompts
from ppd_agents.shipped import open_agent
from ppd_env.errors import PPDError
from ppd_env.features.contract import FeatureExtractor
from ppd_env.features.registry import load_features
from ppd_env.game.actions import Role
from ppd_env.segmenters.contract import Embedding, Segmenter
from ppd_env.segmenters.registry import load_segmenter


@dataclass(frozen=True)
class Verdict:
    """What the defender thinks of one prompt.

    Args:
        index: Its place in the prompts that were given.
        point: (x, y) in pixels.
        label: 1 positive, 0 negative.
        kept: Whether it stays.
        value: What its removal is worth by the agent's Q-value, when that was decided: the expected change of
            Dice, and with it what the suspicion that it is an attack's adds (``QNetworkConfig.suspicion``);
            of matched prompts Dice alone.
        step: The defender's step that removed it, from 1; None where it stays.
        reason: The same in words.
    """

    index: int
    point: tuple[float, float]
    label: int
    kept: bool
    value: float
    step: int | None
    reason: str


@dataclass(frozen=True, eq=False)
class Refinement:
    """Cleaned prompts.

    Args:
        points: (m, 2) float64 (x, y) pixels of the prompts that stay, in the order given.
        labels: (m,) int64, 1 positive, 0 negative.
        kept: (m,) int64, their places in the prompts that were given.
        verdicts: One per given prompt, in the order given.
        stopped: Why the defender stopped.
    """

    points: np.ndarray
    labels: np.ndarray
    kept: np.ndarray
    verdicts: tuple[Verdict, ...]
    stopped: str

    @property
    def removed(self) -> tuple[Verdict, ...]:
        """The verdicts on the prompts that go, in the order they went."""
        return tuple(sorted((v for v in self.verdicts if not v.kept), key=lambda v: (v.step or 0, v.index)))


class Defender:
    """A trained defender that cleans prompts; it needs no segmenter and no retraining.

    Args:
        agent: A trained defender.
        device: A torch device.

    Raises:
        PPDError: The agent is an attacker, or its features are not those it was trained on.
    """

    def __init__(self, agent: Agent, device: torch.device | str = "cpu") -> None:
        if agent.role != "defender":
            raise PPDError("This agent is an attacker; a Defender needs a trained defender.")
        self.agent = agent.to(device)
        self._extractor = load_features(agent.features, device)
        if self._extractor.signature != agent.features_signature:
            raise PPDError(
                f"The features {agent.features!r} installed here are not those the agent was trained on "
                f"({self._extractor.signature} instead of {agent.features_signature}): train it again, or "
                "install the version it came with."
            )

    @property
    def extractor(self) -> FeatureExtractor:
        """Describes the patches of images for this defender."""
        return self._extractor

    @staticmethod
    def load(
        name_or_path: str | Path,
        device: torch.device | str = "cpu",
        *,
        least_gain: float | None = None,
        further_gain: float | None = None,
        matched: bool = False,
    ) -> Defender:
        """Load a defender.

        Args:
            name_or_path: A name the package ships (``"mini"``), the folder of a defender, or of a training.
            device: A torch device.
            least_gain: What its first removal must be valued at; the agent's own where None.
            further_gain: The same of those that follow; the shipped agent's is 0. Below it more wrong prompts
                go, and more right ones with them.
            matched: The prompts will come from feature matching or another one-shot prompter, many of them
                wrong and nobody's attack: see ``Agent.for_matched``. Thresholds that are given hold here too.

        Returns:
            The defender.

        Raises:
            PPDError: There is no such agent, or it cannot be used.
        """
        agent = open_agent(name_or_path, "defender", device)
        agent = agent.for_matched() if matched else agent
        given: dict[str, Any] = {"least_gain": least_gain, "further_gain": further_gain}
        return Defender(replace(agent, **{k: v for k, v in given.items() if v is not None}), device)

    def refine(
        self,
        image: np.ndarray,
        points: Points,
        labels: Labels,
        segmenter: Segmenter | str | None = None,
    ) -> Refinement:
        """Remove the prompts that hurt or look like an attack's; stop when no removal is valued enough.

        The first removal must be valued at the agent's ``least_gain``; once one prompt was wrong others are
        likelier to be, and ``further_gain``, which may be negative, is enough.

        Prompts of one sign in one patch are one candidate and go together. A patch that holds both signs is
        contested, and a node carries one sign at a time, so there are two passes, each with the other sign
        fixed there. In the first, contested patches show their positive prompts, while their negative ones
        wait; whatever is shown may go. In the second, contested patches show their negative prompts in place
        of the positive ones, and every positive prompt that is left is fixed: only negative ones may go. The
        last prompt in view never goes, so that one positive and one negative prompt alone in one patch both
        stay, whatever they are worth.

        If a positive prompt is given, one is returned. Of 64 prompts and more several are removed between two
        looks of the network, which cost the square of their number; of matched ones (``load``) up to half.

        Args:
            image: (H, W, 3) uint8 RGB, of any size.
            points: (n, 2) (x, y) in pixels, as SAM's predictor takes them.
            labels: (n,) 1 positive, 0 negative.
            segmenter: A segmenter or its URI; asked only by agents that were trained with its feedback.

        Returns:
            What stays, and a verdict on every prompt.

        Raises:
            PPDError: The image or a prompt cannot be used, or the agent needs a segmenter; the message says
                which and why.
        """
        return self._clean([image], [self._checked(image, points, labels)], segmenter)[0]

    def refine_seen(
        self, target: SeenTarget, points: Points, labels: Labels, segmenter: Segmenter | None = None
    ) -> Refinement:
        """Clean the prompts of an image that was encoded before.

        Args:
            target: The image, with features of this defender's extractor on its grid.
            points: As in ``refine``.
            labels: As in ``refine``.
            segmenter: The one that embedded the image; asked only by agents trained with its feedback.

        Returns:
            What ``refine`` gives for the image.

        Raises:
            PPDError: A prompt cannot be used, or the agent needs a segmenter.
        """
        given = check_prompts(points, labels, target.size, self.agent.grid)
        witness = None
        if (watching := self._watching(segmenter)) is not None:
            witness = Witness(watching, target.embedding, [given], self.agent.grid)
        return self._judged(target.features[None], [given], witness)[0]

    def refine_batch(
        self,
        images: Sequence[np.ndarray],
        points: Sequence[Points],
        labels: Sequence[Labels],
        segmenter: Segmenter | str | None = None,
    ) -> list[Refinement]:
        """Clean several images' prompts side by side, with one look of the network per step.

        Args:
            images: B images as ``refine`` takes them, of any sizes.
            points: B sets of points, of any sizes.
            labels: B sets of labels.
            segmenter: As in ``refine``.

        Returns:
            B refinements; each is what ``refine`` gives for this image alone, but for rounding: values may
            differ in their last digits, and where two removals are worth the same their order.

        Raises:
            PPDError: An image or a prompt cannot be used; the message names the image by its index.
        """
        if not len(images) == len(points) == len(labels):
            raise PPDError(
                f"{len(images)} images need as many sets of points and of labels, got {len(points)} and "
                f"{len(labels)}."
            )
        prompts = []
        for index, given in enumerate(zip(images, points, labels, strict=True)):
            try:
                prompts.append(self._checked(*given))
            except PPDError as error:
                raise PPDError(f"images[{index}]: {error}") from None
        return self._clean(images, prompts, segmenter)

    def _checked(self, image: np.ndarray, points: Points, labels: Labels) -> PromptSet:
        check_image(image)
        return check_prompts(points, labels, image.shape[:2], self.agent.grid)

    def _clean(
        self, images: Sequence[np.ndarray], prompts: list[PromptSet], segmenter: Segmenter | str | None
    ) -> list[Refinement]:
        if not prompts:
            return []
        watching = self._watching(segmenter)
        features, embeddings = [], []
        for image in images:  # models that serve as both encode an image once if asked for both in turn
            features.append(self._extractor.extract(image, self.agent.grid))
            if watching is not None:
                embeddings.append(watching.embed(image))
        witness = None
        if watching is not None:
            witness = Witness(watching, Embedding.cat(embeddings), prompts, self.agent.grid)
        return self._judged(torch.stack(features), prompts, witness)

    def _judged(
        self, features: torch.Tensor, prompts: list[PromptSet], witness: Witness | None
    ) -> list[Refinement]:
        cleaning = Cleaning(self.agent, features, prompts, witness)
        cleaning.run()
        return [_refinement(cleaning, row, given) for row, given in enumerate(prompts)]

    def _watching(self, segmenter: Segmenter | str | None) -> Segmenter | None:
        """Return the segmenter to be asked before every step, if this agent wants one."""
        if not self.agent.network.config.use_feedback:
            return None
        if segmenter is None:
            raise PPDError(
                "This defender was trained with a segmenter's feedback: pass refine(..., segmenter=...)."
            )
        return load_segmenter(segmenter, self._extractor.device) if isinstance(segmenter, str) else segmenter


def _refinement(cleaning: Cleaning, row: int, given: PromptSet) -> Refinement:
    """Read one image's result out of a finished cleaning."""
    kept = cleaning.alive[row].cpu().numpy()[given.candidates]
    values = cleaning.values[row].cpu().numpy()[given.candidates]
    steps = cleaning.removed_at[row].cpu().numpy()[given.candidates]
    least = cleaning.thresholds[row].cpu().numpy()[given.candidates]
    verdicts = []
    for index, candidate in enumerate(given.candidates.tolist()):
        value, label, stays = float(values[index]), int(given.labels[index]), bool(kept[index])
        reason = _why_kept(value, label, float(least[index])) if stays else cleaning.reasons[row, candidate]
        x, y = given.points[index].tolist()
        step = None if stays else int(steps[index])
        verdicts.append(Verdict(index, (x, y), label, stays, value, step, reason))
    left = np.flatnonzero(kept)
    return Refinement(given.points[left], given.labels[left], left, tuple(verdicts), cleaning.stopped[row])


def _why_kept(value: float, label: int, least_gain: float) -> str:
    """Say why a prompt stays: it is not worth removing, or else it must not go."""
    if value < least_gain:
        asked = f", less than the {least_gain:g} that was asked for" if value >= 0 else ""
        return f"stays: its removal is valued at {value:+.3f}{asked}"
    rule = "the last positive prompt" if label == 1 else "the last prompt in view"
    return f"stays: {rule} is never removed, though that is valued at {value:+.3f}"


def load_opponent(path: str, role: str = "attacker", stop: str = "true", device: str = "cpu") -> GreedyAgent:
    """Return a trained agent as an opponent: ``ppd_agents.defender:load_opponent?path=mini``.

    Args:
        path: A name the package ships, or a folder, see ``open_agent``.
        role: ``"attacker"`` or ``"defender"``: which one of the two that a name or a training has. What
            environments ask of an opponent is the attack before the defender starts.
        stop: ``"false"``: it stops only when nothing else is legal.
        device: A torch device.

    Returns:
        The opponent.

    Raises:
        PPDError: There is no such agent, or ``role`` or ``stop`` is none of the words above.
    """
    if role not in ("attacker", "defender"):
        raise PPDError(f"role must be 'attacker' or 'defender', got {role!r}.")
    if stop not in ("true", "false"):
        raise PPDError(f"stop must be 'true' or 'false', got {stop!r}.")
    return GreedyAgent(open_agent(path, cast(Role, role), device), stop == "true")
