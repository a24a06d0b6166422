"""``shapes://train?count=1000&seed=0``: procedural scenes, endless and seeded."""

from __future__ import annotations

import numpy as np

from ppd_env.errors import ConfigError
from ppd_env.scenes.scene import RawScene
from ppd_env.scenes.shapes.config import ShapesConfig
from ppd_env.scenes.shapes.generator import draw_scene
from ppd_env.uris import Uri

SPLITS = ("train", "val", "test")
_MAX_TRIES = 100


class ShapesSource:
    """The scenes of one split, seed and count.

    Scene ``index`` depends on (split, seed, index) only, never on ``count``. Splits never share a scene:
    the split is part of the random seed.

    Args:
        uri: ``shapes://SPLIT?count=N&seed=K`` with SPLIT one of train, val, test; count defaults to 1000,
            seed to 0.

    Raises:
        ConfigError: Unknown split or key, or a count below 1.
    """

    def __init__(self, uri: Uri) -> None:
        uri.require_keys({"count", "seed"})
        if uri.path not in SPLITS:
            raise ConfigError(
                f"{uri.text!r}: unknown split {uri.path!r}; use shapes://{{{', '.join(SPLITS)}}}."
            )
        self.uri = uri.text
        self.split = uri.path
        self.count = uri.integer("count", 1000)
        self.seed = uri.integer("seed", 0)
        if self.count < 1 or self.seed < 0:
            raise ConfigError(f"{uri.text!r}: count must be at least 1 and seed at least 0.")
        self.config = ShapesConfig()
        self.signature = f"shapes-{self.config.digest()}"

    def __len__(self) -> int:
        """Return the count."""
        return self.count

    def __getitem__(self, index: int) -> RawScene:
        """Draw scene ``index`` and choose one of its objects as the target.

        Args:
            index: 0 <= index < count.

        Returns:
            The scene; its target covers a share of the image within ``config.target_area``.

        Raises:
            IndexError: The index is out of range.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"{self.uri!r} has scenes 0 to {self.count - 1}, not {index}.")
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        low, high = self.config.target_area
        for _ in range(_MAX_TRIES):
            drawn = draw_scene(self.config, rng)
            area = drawn.masks.mean(axis=(1, 2)) if len(drawn.masks) else np.zeros(0)
            fit = np.flatnonzero((area >= low) & (area <= high))
            if len(fit):
                mask = drawn.masks[int(rng.choice(fit))]
                name = f"shapes-{self.split}-{self.seed}-{index:06d}"
                return RawScene(name=name, image=drawn.image, mask=mask, group=name)
        raise RuntimeError(f"No target of {low:.0%} to {high:.0%} of the image in {_MAX_TRIES} drawings.")
