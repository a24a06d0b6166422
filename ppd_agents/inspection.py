"""What ``ppd data check`` tells about a set of scenes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from ppd_env.errors import SceneError
from ppd_env.scenes.sources import open_source


@dataclass(frozen=True)
class SceneCheck:
    """What was found.

    Args:
        uri: The scenes.
        signature: Their signature.
        usable: Number of scenes that can be used.
        groups: Number of groups among them.
        sides: Least and greatest longer side in pixels; None where nothing can be used.
        foreground: Least, median and greatest share of foreground; None where nothing can be used.
        problems: Scenes that cannot be used, each as one sentence that names the file.
    """

    uri: str
    signature: str
    usable: int
    groups: int
    sides: tuple[int, int] | None
    foreground: tuple[float, float, float] | None
    problems: list[str]

    def text(self) -> str:
        """Return lines for a terminal."""
        lines = [
            f"{self.uri}: {self.usable} usable scenes in {self.groups} groups, {len(self.problems)} broken."
        ]
        if self.sides is not None and self.foreground is not None:
            low, middle, high = (f"{100 * share:.1f}" for share in self.foreground)
            lines.append(f"Longer side {self.sides[0]} to {self.sides[1]} pixels.")
            lines.append(f"Foreground {low} to {high} % of the image, median {middle} %.")
        return "\n".join(lines + [f"  {problem}" for problem in self.problems])

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "uri": self.uri,
            "signature": self.signature,
            "usable": self.usable,
            "groups": self.groups,
            "sides": None if self.sides is None else list(self.sides),
            "foreground": None if self.foreground is None else list(self.foreground),
            "problems": self.problems,
        }


def check_scenes(uri: str, progress: bool = False) -> SceneCheck:
    """Read every scene of a URI; broken ones are listed, never raised.

    Args:
        uri: The scenes.
        progress: Show a progress bar.

    Returns:
        What was found.

    Raises:
        PPDError: The URI itself is wrong, or its folder is missing.
    """
    source = open_source(uri)
    groups, sides, shares, problems = set(), [], [], []
    for index in tqdm(range(len(source)), desc="reading", unit="scene", disable=not progress):
        try:
            scene = source[index]
        except SceneError as error:
            problems.append(str(error))
            continue
        groups.add(scene.group)
        sides.append(max(scene.mask.shape))
        shares.append(float(scene.mask.mean()))
    return SceneCheck(
        uri=uri,
        signature=source.signature,
        usable=len(sides),
        groups=len(groups),
        sides=(min(sides), max(sides)) if sides else None,
        foreground=(min(shares), float(np.median(shares)), max(shares)) if shares else None,
        problems=problems,
    )
