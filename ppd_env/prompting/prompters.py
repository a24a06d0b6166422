"""Every way to prompt a target, by name, each called alike: ``prompts(reference, target, rng)``."""

from __future__ import annotations

import numpy as np

from ppd_env.errors import ConfigError
from ppd_env.prompting.bidirectional import bidirectional_prompts
from ppd_env.prompting.gbmseg import gbmseg_prompts
from ppd_env.prompting.ideal import ideal_prompts
from ppd_env.prompting.likeness import persam_prompts
from ppd_env.prompting.matching import feature_matching
from ppd_env.prompting.noise import noise_prompts
from ppd_env.prompting.pair import Prompter, References, Target, drawing
from ppd_env.scenes.patches import nodes_inside, peak_node


def ideal(reference: References, target: Target, rng: np.random.Generator | None = None) -> np.ndarray:
    """Draw ideal prompts from the target's own ground truth: an upper bound, not a one-shot method.

    Args:
        reference: Not used.
        target: With its mask.
        rng: Draws the jittered layout, see ``ideal_prompts``.

    Returns:
        (N,) int8 status.

    Raises:
        ConfigError: The target has no mask or an empty one, or there is no generator.
    """
    if target.mask is None or not target.mask.any():
        raise ConfigError("'ideal' prompts come from the ground truth: give the target a mask, not empty.")
    truth, peak = nodes_inside(target.mask, target.grid), peak_node(target.mask, target.grid)
    return ideal_prompts(truth, peak, drawing(rng, "ideal"))


def random(reference: References, target: Target, rng: np.random.Generator | None = None) -> np.ndarray:
    """Draw nodes and signs at random, without a look at either image; see ``noise_prompts``.

    Args:
        reference: Not used.
        target: Only its number of patches counts.
        rng: Draws everything.

    Returns:
        (N,) int8 status.

    Raises:
        ConfigError: There is no generator.
    """
    return noise_prompts(len(target.features), drawing(rng, "random"))


PROMPTERS: dict[str, Prompter] = {
    "bidirectional": bidirectional_prompts,
    "gbmseg": gbmseg_prompts,
    "ideal": ideal,
    "matching": feature_matching,
    "persam": persam_prompts,
    "random": random,
}
"""Name -> prompter; add to it to offer one of your own."""


def load_prompter(name: str) -> Prompter:
    """Return a prompter by its name in ``PROMPTERS``.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in PROMPTERS:
        raise ConfigError(f"Unknown prompter {name!r}; known ones: {', '.join(sorted(PROMPTERS))}.")
    return PROMPTERS[name]
