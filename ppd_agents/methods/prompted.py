"""Methods that prompt once and decode once, with or without somebody who cleans the prompts in between."""

from __future__ import annotations

import numpy as np

from ppd_agents.cleaning import Cleaning, Witness
from ppd_agents.dqn.agent import Agent
from ppd_agents.methods.contract import (
    OneShotResult,
    SeenReferences,
    SeenTarget,
    at_native_size,
    decode,
)
from ppd_agents.prompt_sets import check_prompts
from ppd_env.errors import ConfigError
from ppd_env.features.contract import FeatureExtractor
from ppd_env.prompting.pair import as_points
from ppd_env.prompting.prompters import load_prompter
from ppd_env.segmenters.contract import Segmenter


class Prompted:
    """Prompts by a prompter's rules and decodes all points at once into a single mask.

    - ``matching``: PPD's feature matching (Section IV, "Feature matching" of Table I), see
      ``prompting.matching`` for its rules and for what differs from the authors' code.
    - ``gbmseg``: GBMSeg (Liu et al., MICCAI 2024), see ``prompting.gbmseg``. As published, SAM is asked
      once, for a single mask.

    Args:
        segmenter: The segmenter.
        prompter: Name of the prompter.
        uri: What it was opened from.
    """

    def __init__(self, segmenter: Segmenter, prompter: str, uri: str) -> None:
        self.uri = uri
        self._segmenter, self._prompter = segmenter, load_prompter(prompter)

    def segment(
        self, reference: SeenReferences, target: SeenTarget, rng: np.random.Generator | None = None
    ) -> OneShotResult:
        """Segment one target; see ``OneShotMethod``."""
        points, labels = as_points(self._prompter(reference, target, rng), target.size)
        points, labels = self.cleaned(points, labels, target)
        logits, _ = decode(self._segmenter, target.embedding, points, labels)
        return OneShotResult(at_native_size(self._segmenter, logits[0], target.size), points, labels)

    def cleaned(
        self, points: np.ndarray, labels: np.ndarray, target: SeenTarget
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the points (n, 2) and labels (n,) that the segmenter gets; here all of them."""
        return points, labels


class Defended(Prompted):
    """Prompts by a prompter's rules, lets a trained defender clean them, and decodes what stays.

    ``ours`` is PPD's FM-PPD (Section IV, C): feature matching, then the defender, until no removal is
    expected to help (``Agent.for_matched``). ``ppo?agent=FOLDER`` puts another learner's defender in its
    place, see ``predecessor``.

    Args:
        segmenter: The segmenter.
        features: The extractor whose features targets come with.
        prompter: Name of the prompter.
        agent: A trained defender.
        uri: What it was opened from.

    Raises:
        ConfigError: The agent is an attacker, or was trained on other features.
    """

    def __init__(
        self, segmenter: Segmenter, features: FeatureExtractor, prompter: str, agent: Agent, uri: str
    ) -> None:
        super().__init__(segmenter, prompter, uri)
        if agent.role != "defender":
            raise ConfigError(f"{uri!r} names an attacker: name a trained defender.")
        if features.signature != agent.features_signature:
            raise ConfigError(
                f"{uri!r}: the defender was trained on the features {agent.features!r} "
                f"({agent.features_signature}), not on {features.uri!r} ({features.signature}): use those, "
                "or a defender trained on these."
            )
        self.agent = agent.to(features.device)

    def cleaned(
        self, points: np.ndarray, labels: np.ndarray, target: SeenTarget
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the prompts the defender leaves, as ``Defender.refine`` does from the image."""
        if not len(points):
            return points, labels
        given = check_prompts(points, labels, target.size, target.grid)
        witness = None
        if self.agent.network.config.use_feedback:
            witness = Witness(self._segmenter, target.embedding, [given], target.grid)
        cleaning = Cleaning(self.agent, target.features[None], [given], witness)
        cleaning.run()
        kept = cleaning.alive[0].cpu().numpy()[given.candidates]
        return points[kept], labels[kept]
