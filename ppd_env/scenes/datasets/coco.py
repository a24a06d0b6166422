"""``coco:///path?annotations=annotations/instances_val2017.json``: objects of a COCO annotation file.

Published as ``annotations/instances_{train,val}2017.json`` beside the folders ``train2017`` and ``val2017``
(Lin et al., ECCV 2014). Any file of that format will do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppd_env.errors import ConfigError, SceneError
from ppd_env.scenes.datasets.coco_json import CocoAnnotation, CocoFile, CocoImage, read_coco
from ppd_env.scenes.datasets.coco_masks import draw_shape
from ppd_env.scenes.files import FileSource, Published, SceneFiles
from ppd_env.scenes.reading import fitted, read_sized_image
from ppd_env.scenes.scene import RawScene
from ppd_env.scenes.subsets import NARROWING, choice, narrowed, root_of
from ppd_env.uris import Uri

NAME = "coco"
WHERE = "https://cocodataset.org/#download"
LICENCE = "annotations CC BY 4.0; each image under the Flickr licence its entry in the file names"
IMAGES = {"instances_train2017": 118287, "instances_val2017": 5000}
"""Stem of the annotation file -> number of images published for it."""

_KEYS = ("annotations", "images", "per", "crowd", *NARROWING)
_VERSION = 1


@dataclass(frozen=True)
class _Objects(SceneFiles):
    """One scene to be, and what its mask is drawn from.

    Args:
        described: The image, as the file describes it.
        inside: Annotations whose union is the mask.
        unknown: Annotations whose union counts neither way.
    """

    described: CocoImage | None = None
    inside: tuple[CocoAnnotation, ...] = ()
    unknown: tuple[CocoAnnotation, ...] = ()


class CocoSource(FileSource):
    """Scenes from a COCO annotation file, in the order of their names.

    ``per=category`` (the default) makes one scene of all objects of a category in an image, such as
    ``cat/000000000139``; ``per=instance`` one of every object, such as ``cat/000000000139-22371``, with the
    annotation's id. A crowd region is no object: by default (``crowd=void``) it counts neither way in scenes
    of its category, and an image that holds only a crowd of a category is no scene; ``crowd=mask`` counts it
    as object.

    Args:
        uri: ``coco:///path?annotations=annotations/instances_val2017.json``; the file may be left out where
            ``annotations`` holds one ``instances_*.json``. ``images=val2017`` names the folder of the images,
            else it is that of the file's name, or the path itself. ``list=FILE`` and ``count=K&seed=S`` keep
            some of the scenes (``subsets.narrowed``).

    Raises:
        ConfigError: Unknown keys or values.
        SceneError: The annotation file, or the folder of the images, is missing or makes no sense.
    """

    def __init__(self, uri: Uri) -> None:
        uri.require_keys(_KEYS)
        self.per = choice(uri, "per", "category", ("category", "instance"))
        self.crowd = choice(uri, "crowd", "void", ("void", "mask"))
        root = root_of(uri, (".",), Path.is_dir, "is no folder.")
        path = _annotation_file(uri, root)
        file = read_coco(path)
        folder = _image_folder(uri, root, path)
        entries = _scenes(file, folder, self.per, self.crowd)
        if not entries:
            raise SceneError(str(path), "describes no object.")
        whole = not uri.query.keys() & set(NARROWING)
        entries = narrowed(uri, NAME, root, entries)
        if whole:
            entries += [SceneFiles(problem.file, problem=problem) for problem in file.problems]
        self._file = file
        super().__init__(
            uri.text,
            NAME,
            _VERSION,
            entries,
            published=Published(f"COCO, {path.stem}", None, WHERE, LICENCE),
            decided_by=f"{file.digest} {self.per} {self.crowd}",
        )

    def missing(self) -> list[str]:
        """Return what the published file has and this copy has not, as sentences."""
        expected, described = IMAGES.get(self._file.path.stem, 0), len(self._file.images)
        if described >= expected:
            return []
        return [f"{self._file.path}: describes {described} of the {expected} published images."]

    def read(self, entry: SceneFiles) -> RawScene:
        """Read the image and draw the mask of one scene.

        Raises:
            SceneError: The image cannot be used, or an annotation cannot be drawn.
        """
        assert isinstance(entry, _Objects)
        assert entry.image is not None
        assert entry.described is not None
        image, size = read_sized_image(entry.image)
        described = (entry.described.height, entry.described.width)
        if size != described:
            raise SceneError(
                str(entry.image),
                f"is {size[1]} x {size[0]} pixels, {self._file.path.name} describes it as {described[1]} x "
                f"{described[0]}; get both from the same place.",
            )
        mask = self._union(entry.inside, described)
        if not mask.any():
            raise SceneError(
                f"{self._file.path}: {entry.name}", "is an empty mask: no pixel's centre is inside."
            )
        pair = fitted(image, mask, self._union(entry.unknown, described) & ~mask)
        return RawScene(entry.name, pair.image, pair.mask, entry.group, pair.void)

    def _union(self, annotations: tuple[CocoAnnotation, ...], size: tuple[int, int]) -> np.ndarray:
        """Draw annotations over each other, (H, W) bool."""
        drawn = np.zeros(size, bool)
        for annotation in annotations:
            try:
                drawn |= draw_shape(annotation.shape, *size)
            except ValueError as error:
                raise SceneError(
                    f"{self._file.path}: annotation {annotation.id}", f"cannot be drawn: {error}."
                ) from None
        return drawn


def _annotation_file(uri: Uri, root: Path) -> Path:
    """Return the file a URI names, or the only one there is."""
    if "annotations" in uri.query:
        return root / Path(uri.query["annotations"]).expanduser()
    found = annotation_files(root)
    if len(found) == 1:
        return found[0]
    listed = ", ".join(str(path.relative_to(root)) for path in found)
    raise ConfigError(
        f"{uri.text!r}: add annotations=FILE; " + (f"there are {listed}." if found else "none was found.")
    )


def annotation_files(root: Path) -> list[Path]:
    """Return the files named like annotations of objects, in ``root`` and its folder ``annotations``."""
    places = (root / "annotations", root)
    return [path for place in places for path in sorted(place.glob("instances_*.json"))]


def _image_folder(uri: Uri, root: Path, annotations: Path) -> Path:
    """Return the folder of the images."""
    if "images" in uri.query:
        folder = root / Path(uri.query["images"]).expanduser()
        if not folder.is_dir():
            raise SceneError(str(folder), f"is not a folder; check images= in {uri.text!r}.")
        return folder
    by_name = annotations.stem.removeprefix("instances_")
    places = [root / by_name, root / "images" / by_name, root / "images"]
    return next((place for place in places if place.is_dir()), root)


def _scenes(file: CocoFile, folder: Path, per: str, crowd: str) -> list[SceneFiles]:
    """Return the scenes of a file, sorted by name."""
    stems = {identity: Path(image.file_name).stem for identity, image in file.images.items()}
    places = {identity: folder / image.file_name for identity, image in file.images.items()}
    uses = Counter(stems.values())
    by_pair: dict[tuple[str, int], list[CocoAnnotation]] = defaultdict(list)
    for annotation in file.annotations:
        by_pair[annotation.category, annotation.image].append(annotation)
    entries: list[SceneFiles] = []
    for (category, identity), objects in by_pair.items():
        stem = stems[identity]
        group = stem if uses[stem] == 1 else f"{stem}-{identity}"
        unknown = tuple(one for one in objects if one.crowd and crowd == "void")
        inside = tuple(one for one in objects if not one.crowd or crowd == "mask")
        parts = [inside] if per == "category" else [(one,) for one in inside]
        for part in parts:
            if not part:
                continue
            name = f"{category}/{group}" + (f"-{part[0].id}" if per == "instance" else "")
            image, place = file.images[identity], places[identity]
            entries.append(_Objects(name, place, None, group, described=image, inside=part, unknown=unknown))
    return sorted(entries, key=lambda entry: entry.name)
