"""What an evaluation measures."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ppd_env.errors import ConfigError
from ppd_env.opponents import ORACLE_POOL
from ppd_env.prompting.ideal import LAYOUTS


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured.

    Args:
        scenes: URIs of scenes, none of them trained on.
        segmenter: URI of the segmenter.
        features: URI of the patch features.
        grid: g, patches per side.
        device: A torch device.
        layout: Layout of the ideal prompts.
        budgets: Numbers of attack actions; the defender has as many.
        seeds: Seeds of the ideal prompts and of the random moves.
        oracle_pool: Nodes the oracle attack tries in each step, with both signs.
        oracle_scenes: The oracles play on the first so many scenes of each URI.
        resamples: Bootstrap resamples.
        confidence: Coverage of the intervals.
    """

    scenes: tuple[str, ...] = ("shapes://test?count=200&seed=0", "photos://test")
    segmenter: str = "mini"
    features: str = "mini"
    grid: int = 16
    device: str = "cpu"
    layout: str = "jittered"
    budgets: tuple[int, ...] = (6, 20)
    seeds: tuple[int, ...] = (0,)
    oracle_pool: int = ORACLE_POOL
    oracle_scenes: int = 40
    resamples: int = 2000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        for name in ("scenes", "budgets", "seeds"):
            if not getattr(self, name):
                raise ConfigError(f"{name} must name at least one value to evaluate.")
        for name in ("oracle_pool", "oracle_scenes", "resamples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if min(self.budgets) < 1:
            raise ConfigError(f"budgets must be at least 1 action, got {min(self.budgets)}.")
        if min(self.seeds) < 0:
            raise ConfigError(f"seeds must be at least 0, got {min(self.seeds)}.")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence must lie between 0 and 1, got {self.confidence}.")
        if self.layout not in LAYOUTS:
            raise ConfigError(f"layout must be one of {', '.join(LAYOUTS)}, got {self.layout!r}.")

    def decisive(self) -> dict[str, Any]:
        """Return the settings that the prompts and scores of one seed on one set of scenes depend on."""
        bystanders = ("scenes", "seeds", "resamples", "confidence", "device")
        return {name: value for name, value in asdict(self).items() if name not in bystanders}


def on_models(config: EvaluationConfig, named: str) -> EvaluationConfig:
    """Return the same evaluation on other models.

    Args:
        config: What is measured.
        named: ``SEGMENTER+FEATURES``, or ``SEGMENTER`` beside the features that ``config`` names.

    Raises:
        ConfigError: One of the two is empty.
    """
    segmenter, plus, features = named.partition("+")
    if not segmenter or (plus and not features):
        raise ConfigError(f"{named!r}: name a segmenter, or a segmenter and features, as in mini+segmenter.")
    return replace(config, segmenter=segmenter, features=features or config.features)
