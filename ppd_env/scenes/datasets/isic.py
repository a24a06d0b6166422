"""``isic:///path?year=2018&split=test``: skin lesions of the ISIC challenges, lesion segmentation task.

Published as one folder of images and one of masks per split, with other names every year (``PARTS``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ppd_env.scenes.files import FileSource, ImageFiles, Published, paired, warn_ignored
from ppd_env.scenes.reading import MaskRule
from ppd_env.scenes.subsets import NARROWING, choice, narrowed, root_of
from ppd_env.uris import Uri

WHERE = "https://challenge.isic-archive.com/data/"
LICENCE = {
    "2016": "CC0, with a request to cite the challenge",
    "2017": "CC0, with a request to cite the challenge",
    "2018": "CC BY-NC 4.0 for the images, with attribution to HAM10000 and the ISIC archive",
}
_VERSION = 1


@dataclass(frozen=True)
class IsicPart:
    """One split of one year, as published.

    Args:
        images: Folder of the images, ``ISIC_0000000.jpg``.
        masks: Folder of the masks.
        count: Number of images that were published.
    """

    images: str
    masks: str
    count: int

    @property
    def folders(self) -> tuple[str, str]:
        """Both folders."""
        return self.images, self.masks


PARTS: dict[tuple[str, str], IsicPart] = {
    ("2016", "train"): IsicPart(
        "ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth", 900
    ),
    ("2016", "test"): IsicPart("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth", 379),
    ("2017", "train"): IsicPart("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth", 2000),
    ("2017", "val"): IsicPart("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth", 150),
    ("2017", "test"): IsicPart("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth", 600),
    ("2018", "train"): IsicPart(
        "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth", 2594
    ),
    ("2018", "val"): IsicPart(
        "ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth", 100
    ),
    ("2018", "test"): IsicPart("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth", 1000),
}
"""(year, split) -> what was published."""

_AFTER = ("_segmentation", "_Segmentation")
"""What a mask's stem has behind its image's stem; the second in 2016."""

YEARS = ("2016", "2017", "2018")


class IsicSource(FileSource):
    """Scenes of one split of one year, in the order of their names, such as ``ISIC_0012169``.

    Args:
        uri: ``isic:///path?year=2018&split=test``; the path holds the published folders side by side.
            ``list=FILE`` and ``count=K&seed=S`` keep some of the scenes (``subsets.narrowed``).

    Raises:
        ConfigError: Unknown keys or values.
        SceneError: The folders of this split are not here.
    """

    def __init__(self, uri: Uri) -> None:
        uri.require_keys(("year", "split", *NARROWING))
        year = choice(uri, "year", "2018", YEARS)
        split = choice(uri, "split", "test", [known for at, known in PARTS if at == year])
        part = PARTS[year, split]
        missing = (
            f"holds no {part.images} with {part.masks} beside it, which is ISIC {year}, {split}; get them at "
            f"{WHERE}#{year}, and unpack both here."
        )
        root = root_of(uri, inside(year), lambda path: has_part(path, part), missing)
        images = ImageFiles(_unpacked(root, part.images), passed_over=("_superpixels.png", ".txt", ".csv"))
        folder = _unpacked(root, part.masks)
        after = _AFTER[any(path.stem.endswith(_AFTER[1]) for path in folder.iterdir())]
        masks = ImageFiles(folder, after=after, passed_over=(".txt", ".csv"))
        entries = paired(images, masks, MaskRule(threshold=128, brightness=True))
        name = f"isic{year}"
        whole = not uri.query.keys() & set(NARROWING)
        super().__init__(
            uri.text,
            name,
            _VERSION,
            narrowed(uri, name, root, entries),
            published=Published(
                f"ISIC {year}, {split}", part.count if whole else None, f"{WHERE}#{year}", LICENCE[year]
            ),
        )
        warn_ignored(uri.text, images.ignored + masks.ignored)


def inside(year: str) -> tuple[str, ...]:
    """Return where the folders of a year may lie below a path."""
    return f"ISIC{year}", "."


def has_part(root: Path, part: IsicPart) -> bool:
    """Return whether both folders of a split lie in ``root``."""
    return all((root / folder).is_dir() for folder in part.folders)


def _unpacked(root: Path, folder: str) -> Path:
    """Return a published folder, or the one of the same name inside it, as some unpackers leave it."""
    inner = root / folder / folder
    return inner if inner.is_dir() else root / folder
