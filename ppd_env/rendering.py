"""Pictures of a game: image, mask against ground truth, prompts by sign, the last action, Dice so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from ppd_env.game.actions import INACTIVE, NEGATIVE, POSITIVE
from ppd_env.game_batch import GameBatch
from ppd_env.scenes.scene import RawScene

Colour = tuple[int, int, int]

MASK: Colour = (0, 214, 255)
TRUTH: Colour = (255, 255, 255)
INK: Colour = (24, 26, 31)
PAPER: Colour = (245, 245, 242)
HIGHLIGHT: Colour = (255, 214, 10)
SIGN_COLOURS: dict[int, Colour] = {POSITIVE: (38, 166, 91), NEGATIVE: (214, 48, 49)}

SMALLEST_SIDE, LARGEST_SIDE = 512, 1024
"""Bounds of the longer side of the image in a picture, in pixels."""

BAR = 56
"""Height of the caption below the image, in pixels."""

SMOOTH = cv2.LINE_AA
FONT = cv2.FONT_HERSHEY_DUPLEX


@dataclass(frozen=True)
class Frame:
    """Everything one picture shows.

    Args:
        scene: Image (H, W, 3) uint8 and ground truth (H, W) bool.
        mask: (H, W) bool, what the segmenter made of the prompts.
        points: (N, 2) float32, patch centres (x, y) in pixels.
        status: (N,) int8.
        changed: (N,) bool, nodes the last action touched.
        caption: Lines of text below the image.
    """

    scene: RawScene
    mask: np.ndarray
    points: np.ndarray
    status: np.ndarray
    changed: np.ndarray
    caption: tuple[str, str]


def draw(frame: Frame) -> np.ndarray:
    """Return the picture, (height, width, 3) uint8 RGB.

    The mask is tinted cyan with a cyan outline, the ground truth outlined in white. Positive prompts are
    green with a plus, negative ones red with a minus; what the last action touched wears a yellow ring, a
    removed prompt a cross in it.
    """
    height, width = frame.scene.image.shape[:2]
    longer = max(height, width)
    scale = min(max(longer, SMALLEST_SIDE), LARGEST_SIDE) / longer
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    picture = cv2.resize(frame.scene.image, size, interpolation=way)
    mask = cv2.resize(frame.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    truth = cv2.resize(frame.scene.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    tint = picture[mask > 0].astype(np.float32) * 0.65 + np.array(MASK, np.float32) * 0.35
    picture[mask > 0] = tint.astype(np.uint8)
    _outlines(picture, mask, truth)
    _prompts(picture, frame, scale)
    return _captioned(picture, frame.caption)


def _outlines(picture: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> None:
    """Draw both outlines in place: the truth's thin line stays visible inside the mask's broad one."""
    found, true = (cv2.findContours(m, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0] for m in (mask, truth))
    for contours, colour, thickness in ((true, INK, 4), (found, INK, 6), (found, MASK, 4), (true, TRUTH, 2)):
        cv2.drawContours(picture, contours, -1, colour, thickness, SMOOTH)


def _prompts(picture: np.ndarray, frame: Frame, scale: float) -> None:
    """Draw active prompts and what the last action touched, in place."""
    spacing = max(picture.shape[:2]) / max(1, round(len(frame.points) ** 0.5))
    radius = int(np.clip(spacing * 0.24, 3, 10))
    for node in np.flatnonzero((frame.status != INACTIVE) | frame.changed):
        x, y = (int(value) for value in frame.points[node] * scale)
        if frame.changed[node]:
            cv2.circle(picture, (x, y), radius + 4, INK, 4, SMOOTH)
            cv2.circle(picture, (x, y), radius + 4, HIGHLIGHT, 2, SMOOTH)
        if frame.status[node] == INACTIVE:
            cv2.circle(picture, (x, y), radius + 2, INK, -1, SMOOTH)  # yellow is hard to see on bright images
            _strokes(picture, x, y, radius - 1, HIGHLIGHT, ((-1, -1, 1, 1), (-1, 1, 1, -1)))
            continue
        cv2.circle(picture, (x, y), radius + 1, TRUTH, -1, SMOOTH)
        cv2.circle(picture, (x, y), radius, SIGN_COLOURS[int(frame.status[node])], -1, SMOOTH)
        upright = ((0, -1, 0, 1),) if frame.status[node] == POSITIVE else ()
        _strokes(picture, x, y, radius - 3, TRUTH, ((-1, 0, 1, 0), *upright))


def _strokes(
    picture: np.ndarray, x: int, y: int, reach: int, colour: Colour, strokes: tuple[tuple[int, ...], ...]
) -> None:
    """Draw lines around (x, y), each from (a, b) to (c, d) in units of ``reach``, in place."""
    reach = max(1, reach)
    for a, b, c, d in strokes:
        start, end = (x + a * reach, y + b * reach), (x + c * reach, y + d * reach)
        cv2.line(picture, start, end, colour, 2 if reach > 3 else 1, SMOOTH)


def _captioned(picture: np.ndarray, caption: tuple[str, str]) -> np.ndarray:
    """Set two lines of text below a picture, as large as its width allows."""
    out = np.full((picture.shape[0] + BAR, picture.shape[1], 3), PAPER, np.uint8)
    out[: -BAR or None] = picture
    room = picture.shape[1] - 20
    for line, text in enumerate(caption):
        widest = max(1, cv2.getTextSize(text, FONT, 1.0, 1)[0][0])
        at = (10, picture.shape[0] + 22 + 22 * line)
        cv2.putText(out, text, at, FONT, min(0.52, room / widest), INK, 1, SMOOTH)
    return out


class Renderer:
    """Draws games, and shows them in a window in mode ``human``.

    Args:
        mode: None, ``"rgb_array"`` or ``"human"``.
        fps: Pictures per second a window shows at most.
    """

    def __init__(self, mode: str | None, fps: int) -> None:
        self._mode = mode
        self._fps = fps
        self._scene: tuple[int, RawScene] | None = None
        self._window: Any = None

    def render(self, games: GameBatch, game: int, turn: str | None = None) -> np.ndarray | None:
        """Draw one game.

        Args:
            games: All games.
            game: Which one.
            turn: Whose turn it is, for the caption; None takes it from the game.

        Returns:
            The picture (height, width, 3) uint8 in mode ``rgb_array``; None in mode ``human``, which shows
            it.
        """
        if self._mode is None:
            return None
        picture = draw(self._frame(games, game, turn or _turn(games, game)))
        if self._mode == "rgb_array":
            return picture
        self._show(picture)
        return None

    def _frame(self, games: GameBatch, game: int, turn: str) -> Frame:
        bank, row = games.simulator.bank, int(games.rows[game])
        if self._scene is None or self._scene[0] != row:
            self._scene = (row, bank.raw(row))
        one = torch.tensor([game], device=games.rows.device)
        mask = games.simulator.masks_at_native_size(games.rows[one], games.logits[one])[0]
        return Frame(
            scene=self._scene[1],
            mask=mask,
            points=bank.points[row].cpu().numpy(),
            status=games.status[game].cpu().numpy(),
            changed=games.changed[game].cpu().numpy(),
            caption=_caption(games, game, turn),
        )

    def _show(self, picture: np.ndarray) -> None:
        """Put a picture on the screen; the window takes its size."""
        import pygame

        height, width = picture.shape[:2]
        if self._window is None:
            pygame.display.init()
            pygame.display.set_caption("Point Prompt Defender")
        if self._window is None or self._window.get_size() != (width, height):
            self._window = pygame.display.set_mode((width, height))
        self._window.blit(pygame.surfarray.make_surface(picture.swapaxes(0, 1)), (0, 0))
        pygame.event.pump()
        pygame.display.flip()
        pygame.time.Clock().tick(self._fps)

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings; a window stays with its process."""
        return {**self.__dict__, "_window": None, "_scene": None}

    def close(self) -> None:
        """Close the window, if one is open."""
        if self._window is not None:
            import pygame

            pygame.display.quit()
            self._window = None


def _turn(games: GameBatch, game: int) -> str:
    total, left = int(games.steps_total[game]), int(games.steps_left[game])
    return f"{'attacker' if bool(games.attacking[game]) else 'defender'} {total - left}/{total}"


def _caption(games: GameBatch, game: int, turn: str) -> tuple[str, str]:
    status = games.status[game]
    dice, start = float(games.dice[game]), float(games.initial_dice[game])
    prompts = f"+{int((status == POSITIVE).sum())}  -{int((status == NEGATIVE).sum())}"
    return f"Dice {dice:.3f}   start {start:.3f}   {turn}   prompts {prompts}", (
        "white: ground truth   cyan: mask   yellow: last action"
    )
