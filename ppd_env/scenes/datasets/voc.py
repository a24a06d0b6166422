"""``voc:///path?year=2012&split=val``: PASCAL VOC segmentation, one scene per image and class.

Published as ``VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}`` (Everingham et al.,
IJCV 2010). Masks are PNG files with a palette: 0 is background, 1 to 20 are the classes, 255 is void: borders
of objects and whatever the annotators could not tell. Void counts neither way.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ppd_env.errors import SceneError
from ppd_env.paths import cache_dir
from ppd_env.scenes.files import FileSource, Published, SceneFiles
from ppd_env.scenes.reading import MaskRule, read_values
from ppd_env.scenes.subsets import NARROWING, choice, narrowed, root_of
from ppd_env.uris import Uri

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
"""Value 1, value 2, ... of the masks."""

VOID = 255
YEARS = tuple(str(year) for year in range(2007, 2013))
SPLITS = ("train", "val", "trainval", "test")
IMAGES = {("2012", "train"): 1464, ("2012", "val"): 1449, ("2012", "trainval"): 2913}
"""(year, split) -> number of images published for segmentation, where that is known."""

WHERE = "http://host.robots.ox.ac.uk/pascal/VOC/"
LICENCE = "images from Flickr, under Flickr's terms of use"
_VERSION = 1
_TREE = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")
_WORKERS = 4
"""Threads that look through masks; Pillow decodes without Python's lock."""


class VocSource(FileSource):
    """Image-class pairs of one split, such as ``cat/2007_000528``, in the order of their names.

    Which classes an image holds only its mask says. The first opening of a split therefore decodes all its
    masks (seconds) and keeps what it found in the cache folder, for as long as no mask changes.

    Args:
        uri: ``voc:///path?year=2012&split=val``; the path holds ``VOCdevkit``, or is it, or is the folder of
            the year. ``list=FILE`` and ``count=K&seed=S`` keep some of the pairs (``subsets.narrowed``).

    Raises:
        ConfigError: Unknown keys or values.
        SceneError: The folders of this year, or the list of this split, are not here.
    """

    def __init__(self, uri: Uri) -> None:
        uri.require_keys(("year", "split", *NARROWING))
        year = choice(uri, "year", "2012", YEARS)
        split = choice(uri, "split", "val", SPLITS)
        missing = (
            f"holds no VOCdevkit/VOC{year} with {', '.join(_TREE)}; get it at {WHERE} and unpack it here."
        )
        self.root = root_of(uri, voc_inside(year), lambda path: holds_voc(path, year), missing)
        stems = _stems(self.root, split)
        present = _present_classes(self.root, stems)
        entries = sorted(
            (entry for stem in stems for entry in _entries(self.root, stem, present[stem])),
            key=lambda entry: entry.name,
        )
        name = f"voc{year}"
        whole = not uri.query.keys() & set(NARROWING)
        super().__init__(
            uri.text,
            name,
            _VERSION,
            narrowed(uri, name, self.root, entries),
            published=Published(
                f"PASCAL VOC {year}, {split}", IMAGES.get((year, split)) if whole else None, WHERE, LICENCE
            ),
        )


def voc_inside(year: str) -> tuple[str, ...]:
    """Return where the folder of a year may lie below a path."""
    return f"VOCdevkit/VOC{year}", f"VOC{year}", "."


def holds_voc(root: Path, year: str) -> bool:
    """Return whether a folder is that of a year, with segmentation masks; one named otherwise may be any."""
    other = root.name in {f"VOC{one}" for one in YEARS if one != year}
    return not other and all((root / part).is_dir() for part in _TREE)


def _stems(root: Path, split: str) -> list[str]:
    """Return the images of a split, in the order of the list that comes with them."""
    path = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    try:
        stems = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        there = ", ".join(sorted(p.stem for p in path.parent.glob("*.txt"))) or "none"
        raise SceneError(
            str(path), f"cannot be read ({type(error).__name__}); splits here: {there}."
        ) from None
    if not stems:
        raise SceneError(str(path), "names no image; get the list again.")
    return list(dict.fromkeys(stems))


def _entries(root: Path, stem: str, present: Sequence[int] | str) -> list[SceneFiles]:
    """Return the pairs of one image, or one complaint."""
    image, mask = root / "JPEGImages" / f"{stem}.jpg", root / "SegmentationClass" / f"{stem}.png"
    if isinstance(present, str):
        return [SceneFiles(stem, image, problem=SceneError(str(mask), present))]
    if not image.is_file():
        problem = SceneError(
            str(image), "does not exist, though the list of the split names it; get it again."
        )
        return [SceneFiles(stem, mask=mask, problem=problem)]
    return [
        SceneFiles(f"{CLASSES[value - 1]}/{stem}", image, mask, stem, MaskRule(category=value, void=VOID))
        for value in present
    ]


def _present_classes(root: Path, stems: Sequence[str]) -> Mapping[str, Sequence[int] | str]:
    """Return the classes in every mask, or why that is not known; from the cache while nothing changes."""
    masks = [root / "SegmentationClass" / f"{stem}.png" for stem in stems]
    kept = cache_dir() / "listings" / f"voc-{_listing_key(masks)}.json"
    try:
        found: dict[str, list[int] | str] = json.loads(kept.read_text(encoding="utf-8"))
        if found.keys() == set(stems):
            return found
    except (OSError, ValueError, AttributeError):
        pass  # not there yet, or cut short: looked through again
    with ThreadPoolExecutor(_WORKERS) as pool:
        bar = tqdm(total=len(masks), desc=f"listing {root.name}", unit="mask", delay=2, leave=False)
        with bar:
            found = {}
            for stem, classes in zip(stems, pool.map(_classes, masks), strict=True):
                found[stem] = classes
                bar.update()
    _keep(kept, found)
    return found


def _listing_key(masks: Sequence[Path]) -> str:
    """Return a hash of every mask's place, size and time of change."""
    digest = hashlib.sha256(f"{_VERSION}".encode())
    for path in masks:
        try:
            facts = path.stat()
            digest.update(f"{path} {facts.st_size} {facts.st_mtime_ns}".encode())
        except OSError:
            digest.update(f"{path} gone".encode())
    return digest.hexdigest()[:16]


def _classes(mask: Path) -> list[int] | str:
    """Return the classes in a mask, or why they are not known."""
    try:
        values = read_values(mask)
    except SceneError as error:
        return error.reason
    present = np.unique(values)
    odd = [int(value) for value in present if value > len(CLASSES) and value != VOID]
    if odd:
        return f"has the value {odd[0]}, which is no class of PASCAL VOC (0 to {len(CLASSES)}, {VOID} void)."
    classes = [int(value) for value in present if 0 < value <= len(CLASSES)]
    return classes or "holds no class, only background and void."


def _keep(path: Path, found: Mapping[str, Sequence[int] | str]) -> None:
    """Keep a listing for the next time; a disk that refuses costs that time and nothing else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(found, file)
            os.replace(aside, path)
        except OSError:
            Path(aside).unlink(missing_ok=True)
    except OSError:
        pass
