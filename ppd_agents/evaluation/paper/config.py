"""What a table of the paper measures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ppd_env.errors import ConfigError
from ppd_env.prompting.ideal import LAYOUTS

METHODS = ("persam", "persam_f", "matcher", "gbmseg", "ppo", "ours")
"""Rows of Table II that can be run; VRP-SAM's weights were not released, so it is quoted only."""

VERSION = 1
"""Raised by one whenever the same settings give other numbers; pieces kept under another are played again."""


@dataclass(frozen=True)
class TableConfig:
    """What is measured.

    Args:
        table: 1, ideal prompts, attack and defence, matching and PPD on it; 2, one-shot methods.
        segmenter: URI of the segmenter.
        features: URI of the patch features.
        grid: g, patches per side.
        device: A torch device; on a Ray cluster ``"cpu"`` or ``"cuda"``.
        references: References per class, each of which is measured; classes with fewer take turns.
        reference_seed: Chooses the references, and the targets where not all are taken.
        targets: Targets per set at most; None takes all.
        seed: Of the ideal prompts, and of methods that draw.
        budgets: Table 1: numbers of attack actions; the defender has as many.
        layout: Layout of the ideal prompts.
        methods: Table 2: URIs of methods, see ``open_method``.
        resamples: Bootstrap resamples.
        confidence: Coverage of the intervals.
    """

    table: int
    segmenter: str = "mini"
    features: str = "mini"
    grid: int = 16
    device: str = "cpu"
    references: int = 5
    reference_seed: int = 0
    targets: int | None = None
    seed: int = 0
    budgets: tuple[int, ...] = (20,)
    layout: str = "jittered"
    methods: tuple[str, ...] = METHODS
    resamples: int = 2000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        if self.table not in (1, 2):
            raise ConfigError(f"The paper has Tables 1 and 2, not {self.table}.")
        for name in ("grid", "references", "resamples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.targets is not None and self.targets < 1:
            raise ConfigError(f"targets must be at least 1, got {self.targets}.")
        for name in ("seed", "reference_seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}.")
        for name in ("budgets", "methods"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ConfigError(f"{name} must name at least one value, and none twice, got {values}.")
        if min(self.budgets) < 1:
            raise ConfigError(f"budgets must be at least 1 action, got {min(self.budgets)}.")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"confidence must lie between 0 and 1, got {self.confidence}.")
        if self.layout not in LAYOUTS:
            raise ConfigError(f"layout must be one of {', '.join(LAYOUTS)}, got {self.layout!r}.")

    def tasks(self) -> tuple[str, ...]:
        """Return what is played on each part of a set; see ``Bench.play``."""
        return ("ideal", "matching") if self.table == 1 else self.methods

    def decisive(self) -> dict[str, Any]:
        """Return the settings that the scores of any piece depend on."""
        bystanders = ["device", "methods", "resamples", "confidence", "targets", "segmenter", "features"]
        bystanders += ["budgets", "layout"] if self.table == 2 else []
        return {name: value for name, value in asdict(self).items() if name not in bystanders}
