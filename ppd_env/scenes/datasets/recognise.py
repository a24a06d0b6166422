"""Which published layouts lie at a path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from ppd_env.errors import SceneError
from ppd_env.scenes.datasets import fss1000, isic, kvasir, voc
from ppd_env.scenes.datasets.coco import annotation_files

LAYOUTS = (
    "fss1000: fewshot_data/CLASS/1.jpg with 1.png",
    "voc: VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}",
    "isic: ISIC2018_Task1-2_Test_Input and ISIC2018_Task1_Test_GroundTruth, or another split or year",
    "kvasir: Kvasir-SEG/{images,masks,kavsir_bboxes.json}",
    "coco: annotations/instances_*.json",
    "folder: images and masks with the same names",
)
"""The layouts, in words."""


def recognise(path: Path) -> list[str]:
    """Return URIs that together open everything of a known layout at a path.

    Args:
        path: A folder.

    Returns:
        URIs; each opens scenes, or says what is missing. Empty where nothing is known.

    Raises:
        SceneError: The path is no folder.
    """
    if not path.is_dir():
        raise SceneError(str(path), "is not a folder; name a folder or a URI such as voc:///data.")
    path = path.absolute()
    return [uri for look in _LOOKS for uri in look(path)]


def _fss1000(path: Path) -> list[str]:
    here = any(fss1000.holds_classes(path / part) for part in fss1000.INSIDE)
    return [f"fss1000://{path}?split=all"] if here else []


def _voc(path: Path) -> list[str]:
    found = []
    for year in voc.YEARS:
        places = [path / part for part in voc.voc_inside(year) if part != "." or path.name == f"VOC{year}"]
        root = next((place for place in places if voc.holds_voc(place, year)), None)
        if root is None:
            continue
        lists = {p.stem for p in (root / "ImageSets" / "Segmentation").glob("*.txt")} & set(voc.SPLITS)
        if {"train", "val"} <= lists:
            lists.discard("trainval")  # their union
        found += [f"voc://{path}?year={year}&split={split}" for split in voc.SPLITS if split in lists]
    return found


def _isic(path: Path) -> list[str]:
    parts = [
        (year, split)
        for (year, split), part in isic.PARTS.items()
        if any((path / inside / folder).is_dir() for inside in isic.inside(year) for folder in part.folders)
    ]
    return [f"isic://{path}?year={year}&split={split}" for year, split in parts]


def _kvasir(path: Path) -> list[str]:
    roots = [path / part for part in kvasir.INSIDE if kvasir.holds_both(path / part)]
    here = any(root.name.lower() == "kvasir-seg" or (root / kvasir.BOXES).is_file() for root in roots)
    return [f"kvasir://{path}"] if here else []


def _coco(path: Path) -> list[str]:
    return [
        f"coco://{path}?annotations={quote(str(file.relative_to(path)))}" for file in annotation_files(path)
    ]


def _folder(path: Path) -> list[str]:
    return [f"folder://{path}"] if kvasir.holds_both(path) and not _kvasir(path) else []


_LOOKS: tuple[Callable[[Path], list[str]], ...] = (_fss1000, _voc, _isic, _kvasir, _coco, _folder)
