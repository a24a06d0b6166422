"""COCO's annotation files: read, checked, and brought into order; nothing is rasterised."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from ppd_env.errors import SceneError


@dataclass(frozen=True)
class CocoImage:
    """An image as the file describes it.

    Args:
        id: Its id.
        file_name: Where it lies below the folder of the images.
        height: Pixels.
        width: Pixels.
    """

    id: int
    file_name: str
    height: int
    width: int


@dataclass(frozen=True)
class CocoAnnotation:
    """An object, or a crowd of objects.

    Args:
        id: Its id.
        image: Id of its image.
        category: Name of its category.
        crowd: Whether it marks a region with many objects instead of one.
        shape: Polygons (list of lists of numbers), or an RLE (mapping with ``size`` and ``counts``).
    """

    id: int
    image: int
    category: str
    crowd: bool
    shape: Any


@dataclass(frozen=True)
class CocoFile:
    """An annotation file.

    Args:
        path: The file.
        digest: SHA-256 of its bytes.
        images: Id -> image.
        annotations: All annotations whose image and category are known.
        categories: Names, in the order of the file.
        problems: What is wrong with single images and annotations; they are left out.
    """

    path: Path
    digest: str
    images: dict[int, CocoImage]
    annotations: list[CocoAnnotation]
    categories: list[str]
    problems: list[SceneError]


def read_coco(path: Path) -> CocoFile:
    """Read and check an annotation file (``instances_*.json``).

    Args:
        path: The file.

    Returns:
        What it says. Images and annotations that make no sense are left out, each with a reason.

    Raises:
        SceneError: The file is no annotation file.
    """
    content, digest = _parsed(path)
    problems: list[SceneError] = []
    categories = _categories(content, path)
    images: dict[int, CocoImage] = {}
    for number, entry in _entries(content, "images", path, problems):
        image = _image(entry)
        if isinstance(image, str):
            problems.append(SceneError(f"{path}: image {number}", image))
        elif image.id in images:
            problems.append(SceneError(f"{path}: image {number}", f"has the id {image.id} of another image."))
        else:
            images[image.id] = image
    annotations = []
    for number, entry in _entries(content, "annotations", path, problems):
        annotation = _annotation(entry, images, categories)
        if isinstance(annotation, str):
            name = entry.get("id", f"at place {number}")
            problems.append(SceneError(f"{path}: annotation {name}", annotation))
        else:
            annotations.append(annotation)
    return CocoFile(path, digest, images, annotations, list(categories.values()), problems)


def _parsed(path: Path) -> tuple[dict[str, Any], str]:
    """Return the file's content and the SHA-256 of its bytes."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SceneError(
            str(path), f"cannot be read ({error.strerror}); name the file in annotations=."
        ) from None
    try:
        content = json.loads(text)
    except ValueError as error:  # of which JSONDecodeError and UnicodeDecodeError are kinds
        raise SceneError(str(path), f"is no JSON, or cut short ({error}).") from None
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or any(not isinstance(content.get(key), list) for key in keys):
        raise SceneError(
            str(path),
            "is no COCO annotation file of objects: it must be an object with the lists images, annotations "
            "and categories (instances_*.json).",
        )
    return content, hashlib.sha256(text).hexdigest()


def _entries(
    content: dict[str, Any], key: str, path: Path, problems: list[SceneError]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the entries of one list with their place in it; what is no object is a problem."""
    for number, entry in enumerate(content[key]):
        if isinstance(entry, dict):
            yield number, entry
        else:
            problems.append(SceneError(f"{path}: {key} at place {number}", "is no JSON object."))


def _categories(content: dict[str, Any], path: Path) -> dict[int, str]:
    """Return id -> name; scenes are named by them, so a doubtful list stops everything.

    Raises:
        SceneError: An entry has no id or name, or two have the same.
    """
    categories: dict[int, str] = {}
    for entry in content["categories"]:
        identity = entry.get("id") if isinstance(entry, dict) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        if not _whole(identity) or not isinstance(name, str) or not name.strip():
            raise SceneError(str(path), f"has the category {entry!r}; each needs a whole id and a name.")
        name = name.replace("/", "-")
        if identity in categories or name in categories.values():
            raise SceneError(str(path), f"has two categories with the id {identity} or the name {name!r}.")
        categories[identity] = name
    if not categories:
        raise SceneError(str(path), "has no categories.")
    return categories


def _image(entry: dict[str, Any]) -> CocoImage | str:
    """Return an image, or what is wrong with it."""
    identity, name = entry.get("id"), entry.get("file_name")
    height, width = entry.get("height"), entry.get("width")
    if not _whole(identity):
        return f"has the id {identity!r}; it must be a whole number."
    if not isinstance(name, str) or not name or Path(name).is_absolute() or ".." in Path(name).parts:
        return f"has the file_name {name!r}; it must be a path below the folder of the images."
    if not (_whole(height) and _whole(width) and height > 0 and width > 0):
        return f"has height {height!r} and width {width!r}; both must be numbers of pixels."
    return CocoImage(identity, name, height, width)


def _annotation(
    entry: dict[str, Any], images: dict[int, CocoImage], categories: dict[int, str]
) -> CocoAnnotation | str:
    """Return an annotation, or what is wrong with it; its shape is checked when it is drawn."""
    for key in ("id", "image_id", "category_id"):
        if not _whole(entry.get(key)):
            return f"has {key} {entry.get(key)!r}; it must be a whole number."
    if entry["image_id"] not in images:
        return f"belongs to image {entry['image_id']}, which the file does not describe."
    if entry["category_id"] not in categories:
        return f"has the category {entry['category_id']}, which the file does not name."
    if entry.get("iscrowd", 0) not in (0, 1):
        return f"has iscrowd {entry['iscrowd']!r}; it must be 0 or 1."
    if "segmentation" not in entry:
        return "has no segmentation."
    category = categories[entry["category_id"]]
    return CocoAnnotation(
        entry["id"], entry["image_id"], category, bool(entry.get("iscrowd")), entry["segmentation"]
    )


def _whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
