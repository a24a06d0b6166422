"""``fss1000:///path``: FSS-1000, 1000 classes of ten images each (Li et al., CVPR 2020).

Published as ``fewshot_data/CLASS/{1..10}.jpg`` with masks ``{1..10}.png`` beside them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ppd_env.errors import SceneError
from ppd_env.scenes.files import FileSource, ImageFiles, Published, SceneFiles, paired, warn_ignored
from ppd_env.scenes.reading import MaskRule
from ppd_env.scenes.scene import scene_class
from ppd_env.scenes.subsets import choice, count_of, drawn, listed, root_of, seed_of
from ppd_env.uris import Uri

NAME = "fss1000"
SPLITS = ("train", "test", "unseen", "all")
TRAIN_IMAGES = 1000
"""Images PPD is trained on, drawn at random (Section IV-A)."""

WHERE = "https://github.com/HKUSTCV/FSS-1000"
LICENCE = "none stated by its publishers; the images come from the web"
CLASSES, IMAGES_PER_CLASS = 1000, 10

_VERSION = 1
INSIDE = ("fewshot_data", "fewshot_data/fewshot_data", "FSS-1000", "FSS-1000/fewshot_data", ".")
_MASKS = (".png", ".PNG")
_IMAGES = (".jpg", ".JPG", ".jpeg", ".JPEG")


class FssSource(FileSource):
    """Scenes of FSS-1000, in the order of their names, such as ``apple/1``.

    ``split=train`` (the default) are ``count=1000`` images drawn by ``seed=0`` from all, ``test`` all others,
    ``unseen`` those of the others whose class has no image in ``train``, ``all`` all. The draw is
    ``subsets.drawn`` over the names of all images here.

    Args:
        uri: ``fss1000:///path?split=train&count=1000&seed=0``; ``list=FILE`` keeps the classes or images that
            a text file names, within the split.

    Raises:
        ConfigError: Unknown keys or values.
        SceneError: The path holds no FSS-1000, or too few images for the draw.
    """

    def __init__(self, uri: Uri) -> None:
        uri.require_keys(("split", "count", "seed", "list"))
        split = choice(uri, "split", "train", SPLITS)
        count, seed = count_of(uri, TRAIN_IMAGES), seed_of(uri)
        missing = f"holds no FSS-1000 (fewshot_data/CLASS/1.jpg with 1.png beside it); get it at {WHERE}."
        self.root = root_of(uri, INSIDE, holds_classes, missing)
        images = ImageFiles(self.root, passed_over=(*_MASKS, ".txt"))
        masks = ImageFiles(self.root, passed_over=(*_IMAGES, ".txt"))
        everything = paired(images, masks, MaskRule(threshold=128, brightness=True))
        self._everything = everything
        entries = _split(everything, split, count, seed, self.root)
        published = {
            "all": CLASSES * IMAGES_PER_CLASS,
            "train": count,
            "test": CLASSES * IMAGES_PER_CLASS - count,
        }.get(split)
        super().__init__(
            uri.text,
            NAME,
            _VERSION,
            listed(uri, self.root, entries),
            published=Published("FSS-1000", None if "list" in uri.query else published, WHERE, LICENCE),
        )
        warn_ignored(uri.text, images.ignored)

    def missing(self) -> list[str]:
        """Return what the published set has and this copy has not, as sentences."""
        counts = Counter(scene_class(entry.name) for entry in self._everything)
        found = []
        if len(counts) < CLASSES:
            found.append(f"{self.root}: holds {len(counts)} of the {CLASSES} published classes.")
        return found + [
            f"{self.root / category}: holds {count} of {IMAGES_PER_CLASS} images."
            for category, count in sorted(counts.items())
            if count < IMAGES_PER_CLASS
        ]


def holds_classes(root: Path) -> bool:
    """Return whether a folder holds a class folder with a numbered image and its mask."""
    if not root.is_dir():
        return False
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and any(
            (folder / f"{number}{ending}").is_file()
            for number in range(1, IMAGES_PER_CLASS + 1)
            for ending in _IMAGES[:2]
            if (folder / f"{number}.png").is_file()
        ):
            return True
    return False


def _split(entries: list[SceneFiles], split: str, count: int, seed: int, root: Path) -> list[SceneFiles]:
    """Return one side of the draw."""
    if split == "all":
        return entries
    if count >= len(entries):
        raise SceneError(
            str(root),
            f"holds {len(entries)} images, too few to draw count={count} for training and leave some for "
            "testing; add count=K with a smaller K to the URI, or split=all.",
        )
    train = set(drawn((entry.name for entry in entries), count, NAME, seed))
    if split == "train":
        return [entry for entry in entries if entry.name in train]
    seen = {scene_class(name) for name in train} if split == "unseen" else set()
    kept = [e for e in entries if e.name not in train and scene_class(e.name) not in seen]
    if not kept:
        raise SceneError(
            str(root), f"has no class without a training image at count={count}; take split=test."
        )
    return kept
