"""What ``ppd refine`` does: prompts of an image file in, kept prompts, mask and overlay out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ppd_agents.defender import Defender, Refinement
from ppd_agents.methods.contract import at_native_size, decode
from ppd_agents.prompt_sets import refuse_outside
from ppd_agents.shipped import shipped_names
from ppd_env.errors import PPDError
from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE
from ppd_env.rendering import Frame, draw
from ppd_env.scenes.reading import read_sized_image
from ppd_env.scenes.scene import RawScene
from ppd_env.segmenters.contract import Segmenter
from ppd_env.segmenters.registry import load_segmenter
from ppd_env.whole_files import write_in_one_rename, write_json

TRAINED_HERE = Path("runs/default/training/defender")
SHIPPED = "mini"
_SHAPE = '{"points": [[x, y], ...], "labels": [1, 0, ...]}'


def choose_defender(named: str | None) -> str:
    """Return the defender to use: the one named, else the one `ppd run` trained here, else the shipped one.

    Raises:
        PPDError: None is named, and there is none.
    """
    if named is not None:
        return named
    if TRAINED_HERE.is_dir():
        return str(TRAINED_HERE)
    if SHIPPED in shipped_names():
        return SHIPPED
    raise PPDError(
        f"There is no trained defender in {TRAINED_HERE}: run `ppd run` first, or name one by --defender."
    )


def read_points(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read prompts from a JSON file.

    Args:
        path: The file: ``{"points": [[x, y], ...], "labels": [1, 0, ...]}``.

    Returns:
        points: (n, 2) float64 pixels (x, y).
        labels: (n,) int64, 1 positive, 0 negative.

    Raises:
        PPDError: The file cannot be read or has another shape.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, RecursionError) as error:
        raise PPDError(f"{path}: cannot be read ({error}); write {_SHAPE}.") from None
    except ValueError as error:  # not JSON, or a number of thousands of digits
        raise PPDError(f"{path}: not JSON ({error}); write {_SHAPE}.") from None
    if not isinstance(content, dict) or set(content) - {"points", "labels", "removed"}:
        raise PPDError(f"{path}: must hold {_SHAPE} and nothing else.")
    try:
        points = np.array(content["points"], np.float64)
        labels = np.array(content["labels"], np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise PPDError(f"{path}: must hold {_SHAPE} with numbers.") from None
    if not points.size:
        raise PPDError(f"{path}: holds no points; write {_SHAPE}.")
    if points.ndim != 2 or points.shape[1] != 2 or labels.shape != (len(points),):
        raise PPDError(
            f"{path}: labels of shape {labels.shape}, points of shape {points.shape}; write {_SHAPE}."
        )
    if not np.isin(labels, (0, 1)).all() or not np.isfinite(points).all():
        raise PPDError(f"{path}: labels must be 1 (positive) or 0 (negative) and points finite numbers.")
    return points, labels.astype(np.int64)


def segment(segmenter: Segmenter, image: np.ndarray, points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the mask a prompt set gives, (H, W) bool.

    Args:
        segmenter: The segmenter.
        image: (H, W, 3) uint8 RGB.
        points: (n, 2) pixels (x, y), n >= 1.
        labels: (n,) 1 positive, 0 negative.
    """
    logits, _ = decode(segmenter, segmenter.embed(image), points, labels)
    height, width = image.shape[:2]
    return at_native_size(segmenter, logits[0], (height, width))


def refine_files(
    image_path: Path,
    points_path: Path,
    out: Path,
    defender: str | None,
    segmenter: str,
    *,
    matched: bool = False,
) -> str:
    """Clean the prompts of one image and write ``mask.png``, ``points.json`` and ``overlay.png``.

    Args:
        image_path: The image.
        points_path: Its prompts, see ``read_points``.
        out: Folder that takes the files; made if need be. Mask and points are in the image's own pixels; what
            lies beyond ``reading.MAX_SIDE`` is judged, and the overlay drawn, on a smaller one.
        defender: Folder or name of a trained defender; see ``choose_defender`` for None.
        segmenter: URI of the segmenter.
        matched: The prompts come from feature matching, see ``Defender.load``.

    Returns:
        What was done, in words.

    Raises:
        PPDError: A file cannot be read or a prompt cannot be used.
    """
    written = out / "points.json"
    results = [path.resolve() for path in (written, out / "mask.png", out / "overlay.png")]
    for given in (points_path, image_path):
        if given.resolve() in results:
            raise PPDError(f"{given} would be written over by the result: name another folder by --out.")
    image, size = read_sized_image(image_path)
    points, labels = read_points(points_path)
    refuse_outside(points, size)
    seen, chosen = _as_seen(points, size, image), choose_defender(defender)
    model = load_segmenter(segmenter)
    found = Defender.load(chosen, matched=matched).refine(image, seen, labels, segmenter=model)
    mask = segment(model, image, found.points, found.labels).astype(np.uint8)
    try:
        whole = cv2.resize(mask * 255, size[::-1], interpolation=cv2.INTER_NEAREST)
        _write_picture(out / "mask.png", whole)
        _write_picture(out / "overlay.png", _overlay(image, mask > 0, seen, labels, found)[..., ::-1])
        write_json(written, _as_json(found, points))
    except OSError as error:
        raise PPDError(f"{out}: cannot be written to ({error}); name another folder by --out.") from error
    lines = [f"{len(found.kept)} of {len(labels)} prompts stay; {found.stopped}. Defender: {chosen}"]
    removed = [(v, points[v.index]) for v in found.removed]
    lines += [f"  removed ({x:g}, {y:g}): {verdict.reason}" for verdict, (x, y) in removed]
    return "\n".join([*lines, f"Written to {out}: mask.png, points.json, overlay.png"])


def _as_seen(points: np.ndarray, size: tuple[int, int], image: np.ndarray) -> np.ndarray:
    """Bring points of an image of (height, width) ``size`` to ``image``, to which it was scaled down."""
    shown = np.array(image.shape[1::-1], np.float64)
    return np.minimum(points * (shown / size[::-1]), np.nextafter(shown, 0))


def _as_json(found: Refinement, points: np.ndarray) -> dict[str, Any]:
    """Return what is written of a refinement; ``points`` (n, 2) are the given ones, in the file's pixels."""
    return {
        "points": points[found.kept].tolist(),
        "labels": found.labels.tolist(),
        "removed": [
            {"point": points[v.index].tolist(), "label": v.label, "value": v.value, "reason": v.reason}
            for v in found.removed
        ],
    }


def _overlay(
    image: np.ndarray, mask: np.ndarray, points: np.ndarray, labels: np.ndarray, found: Refinement
) -> np.ndarray:
    """Draw mask, kept prompts, and crosses where prompts were removed, RGB."""
    status = np.full(len(labels), INACTIVE, np.int8)
    status[found.kept] = np.where(labels[found.kept] == 1, POSITIVE, NEGATIVE)
    caption = (f"{len(found.kept)} prompts stay, {len(found.removed)} removed", found.stopped)
    no_truth = np.zeros(image.shape[:2], bool)
    scene = RawScene("", image, no_truth, "")
    return draw(Frame(scene, mask, points.astype(np.float32), status, status == INACTIVE, caption))


def _write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a grey or BGR picture as PNG, aside first and then renamed."""
    write_in_one_rename(path, cv2.imencode(".png", np.ascontiguousarray(picture))[1].tobytes())
