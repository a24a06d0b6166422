"""``kvasir:///path``: Kvasir-SEG, 1000 polyps (Jha et al., MMM 2020).

Published as ``Kvasir-SEG/images/*.jpg``, ``Kvasir-SEG/masks/*.jpg`` of the same names and
``Kvasir-SEG/kavsir_bboxes.json`` (spelled so). Masks are JPEG files, so their values scatter around 0 and
255: what is at least half bright is foreground. No split comes with the images.
"""

from __future__ import annotations

import json
from pathlib import Path

from ppd_env.scenes.files import FileSource, ImageFiles, Published, SceneFiles, paired, warn_ignored
from ppd_env.scenes.reading import MaskRule
from ppd_env.scenes.subsets import NARROWING, choice, drawn, narrowed, root_of, seed_of
from ppd_env.uris import Uri

NAME = "kvasir"
IMAGES = 1000
BOXES = "kavsir_bboxes.json"
SPLITS = ("all", "train", "test")
TEST_SHARE = 0.12
"""Share of the images in ``split=test``: 120 of 1000, as in the split 880 to 120 that is in wide use."""

WHERE = "https://datasets.simula.no/kvasir-seg/"
LICENCE = "for research and education only; ask the authors about anything else"
_VERSION = 1
INSIDE = ("Kvasir-SEG", "kvasir-seg", "Kvasir-SEG/Kvasir-SEG", ".")


class KvasirSource(FileSource):
    """Scenes of Kvasir-SEG, in the order of their names.

    Args:
        uri: ``kvasir:///path``. ``split=all`` (the default), or ``test``, the share ``TEST_SHARE`` of the
            images drawn by ``seed=0`` (``subsets.drawn``), or ``train``, the others. ``list=FILE`` keeps what
            a text file names, such as a published split; ``count=K`` draws K scenes of those.

    Raises:
        ConfigError: Unknown keys or values.
        SceneError: The path holds no Kvasir-SEG.
    """

    def __init__(self, uri: Uri) -> None:
        uri.require_keys(("split", *NARROWING))
        split = choice(uri, "split", "all", SPLITS)
        missing = f"holds no Kvasir-SEG (images/ and masks/ with the same names); get it at {WHERE}."
        self.root = root_of(uri, INSIDE, holds_both, missing)
        images, masks = ImageFiles(self.root / "images"), ImageFiles(self.root / "masks")
        entries = _split(paired(images, masks, MaskRule(threshold=128, brightness=True)), split, seed_of(uri))
        whole = split == "all" and not uri.query.keys() & set(NARROWING)
        super().__init__(
            uri.text,
            NAME,
            _VERSION,
            narrowed(uri, NAME, self.root, entries),
            published=Published("Kvasir-SEG", IMAGES if whole else None, WHERE, LICENCE),
        )
        warn_ignored(uri.text, images.ignored + masks.ignored)

    def missing(self) -> list[str]:
        """Return what the published set has and this copy has not, as sentences."""
        boxes = self.root / BOXES
        try:
            named = dict(json.loads(boxes.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return [
                *super().missing(),
                f"{boxes}: is not here, or no JSON; it names all images, and nothing else needs it.",
            ]
        here = {path.stem for path in (self.root / "images").iterdir()}
        return super().missing() + [
            f"{self.root / 'images' / name}.jpg: is named in {BOXES} and not here."
            for name in sorted(set(named) - here)
        ]


def holds_both(root: Path) -> bool:
    """Return whether a folder holds ``images`` and ``masks``."""
    return (root / "images").is_dir() and (root / "masks").is_dir()


def _split(entries: list[SceneFiles], split: str, seed: int) -> list[SceneFiles]:
    """Return one side of the draw."""
    if split == "all":
        return entries
    count = max(1, round(TEST_SHARE * len(entries)))
    test = set(drawn((entry.name for entry in entries), count, NAME, seed))
    return [entry for entry in entries if (entry.name in test) == (split == "test")]
