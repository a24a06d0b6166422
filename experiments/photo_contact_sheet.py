"""Draw every mask of photos:// on its image, to check them by eye.

Run ``python experiments/photo_contact_sheet.py --out photos.png``; add ``--split test`` for one side only.
The mask's outline is drawn in white on black, everything outside it is dimmed.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import cv2
import numpy as np

from ppd_env.scenes.photos import SPLITS
from ppd_env.scenes.scene import RawScene
from ppd_env.scenes.sources import open_source

TITLE = 18
"""Height in pixels of a tile's title bar."""


def draw_tile(scene: RawScene, side: int) -> np.ndarray:
    """Return a scene with its mask as a (side + TITLE, side, 3) uint8 RGB tile.

    Args:
        scene: The scene.
        side: Side of the square the image is fitted into, in pixels.
    """
    height, width = scene.mask.shape
    scale = side / max(height, width)
    size = (round(width * scale), round(height * scale))
    image = cv2.resize(scene.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    mask = cv2.resize(scene.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    image[mask == 0] //= 3
    outlines, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, outlines, -1, (0, 0, 0), 3)
    cv2.drawContours(image, outlines, -1, (255, 255, 255), 1)
    tile = np.full((side + TITLE, side, 3), 24, np.uint8)
    tile[TITLE : TITLE + size[1], : size[0]] = image
    cv2.putText(tile, scene.name, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return tile


def contact_sheet(splits: list[str], columns: int, side: int) -> np.ndarray:
    """Return all scenes of some splits as one RGB picture, row by row."""
    sources = [open_source(f"photos://{split}") for split in splits]
    tiles = [draw_tile(source[index], side) for source in sources for index in range(len(source))]
    sheet = np.full((math.ceil(len(tiles) / columns) * (side + TITLE), columns * side, 3), 24, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * (side + TITLE), number % columns * side
        sheet[top : top + side + TITLE, left : left + side] = tile
    return sheet


def main() -> None:
    """Write the contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("photo_contact_sheet.png"))
    parser.add_argument("--split", choices=sorted(SPLITS), help="one side only; both without")
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--side", type=int, default=240, help="pixels per tile")
    given = parser.parse_args()
    sheet = contact_sheet([given.split] if given.split else sorted(SPLITS), given.columns, given.side)
    if not cv2.imwrite(str(given.out), sheet[..., ::-1]):
        raise SystemExit(f"{given.out} cannot be written; give --out a PNG file in an existing folder.")
    print(given.out)


if __name__ == "__main__":
    main()
