"""The game in a pygame window: keyboard and mouse."""

from __future__ import annotations

import os
import sys
from typing import Any

import cv2
import numpy as np

from ppd_agents.play.session import HELP, KEYS, Session
from ppd_env.errors import PPDError
from ppd_env.rendering import BAR, FONT, HIGHLIGHT, INK, PAPER, SMOOTH

STRIP = 52
"""Height of the two lines of text below the picture, in pixels."""

_FPS = 30
_BUTTONS = {1: "act", 3: "negative"}


def has_display() -> bool:
    """Tell whether a window can be expected to open here."""
    if os.environ.get("SDL_VIDEODRIVER") or not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def compose(session: Session) -> np.ndarray:
    """Draw the game with cursor, legal moves where asked for, and two lines of text below.

    Args:
        session: The game.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    picture = np.asarray(session.env.render()).copy()
    height, width = picture.shape[0] - BAR, picture.shape[1]
    if session.shows_legal:
        for node in np.flatnonzero(session.legal_nodes()):
            row, column = divmod(int(node), session.grid)
            at = _corner(column + 0.5, row + 0.5, session.grid, width, height)
            cv2.circle(picture, at, 2, HIGHLIGHT, -1, SMOOTH)
    column, row = session.cursor
    first, last = (_corner(column + d, row + d, session.grid, width, height) for d in (0, 1))
    cv2.rectangle(picture, first, last, INK, 3, SMOOTH)
    cv2.rectangle(picture, first, last, HIGHLIGHT, 1, SMOOTH)
    return np.concatenate([picture, _texts((session.says, HELP[session.role]), width)])


def _corner(column: float, row: float, grid: int, width: int, height: int) -> tuple[int, int]:
    return round(column * width / grid), round(row * height / grid)


def _texts(lines: tuple[str, ...], width: int) -> np.ndarray:
    strip = np.full((STRIP, width, 3), PAPER, np.uint8)
    for number, line in enumerate(lines):
        widest = max(1, cv2.getTextSize(line, FONT, 1.0, 1)[0][0])
        size = min(0.5, (width - 20) / widest)
        cv2.putText(strip, line, (10, 18 + 22 * number), FONT, size, INK, 1, SMOOTH)
    return strip


class Window:
    """Shows a session and turns keys and clicks into its commands.

    Args:
        session: The game.

    Raises:
        PPDError: No window can be opened.
    """

    def __init__(self, session: Session) -> None:
        import pygame

        self._session, self._pygame = session, pygame
        self._picture = compose(session)
        try:
            pygame.display.init()
            pygame.display.set_caption("Point Prompt Defender")
            self._screen = pygame.display.set_mode(self._size())
        except pygame.error as error:
            raise PPDError(f"No window can be opened here ({error}): play with --terminal.") from None

    def _size(self) -> tuple[int, int]:
        return self._picture.shape[1], self._picture.shape[0]

    def run(self) -> None:
        """Play until the person has had enough."""
        clock = self._pygame.time.Clock()
        try:
            self._show()
            while not self._session.quit:
                events = [event for event in self._pygame.event.get() if self.handle(event)]
                if events and not self._session.quit:
                    self._show()
                clock.tick(_FPS)
        finally:
            self._pygame.display.quit()

    def handle(self, event: Any) -> bool:
        """Do what an event says, and tell whether there is something new to see."""
        pygame, session = self._pygame, self._session
        before = session.cursor
        if event.type == pygame.QUIT:
            session.quit = True
        elif event.type == pygame.KEYDOWN:
            session.command(KEYS.get(pygame.key.name(event.key), ""))
        elif event.type == pygame.MOUSEMOTION:
            self._point(event.pos)
            return session.cursor != before
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button in _BUTTONS and self._point(event.pos):
            session.command(_BUTTONS[event.button])
        else:
            return event.type in (pygame.VIDEOEXPOSE, pygame.WINDOWEXPOSED)
        return True

    def _point(self, position: tuple[int, int]) -> bool:
        """Move the cursor to a place in the window; False where it is below the image."""
        width, height = self._picture.shape[1], self._picture.shape[0] - BAR - STRIP
        if position[1] >= height:
            return False
        grid = self._session.grid
        self._session.point_at(position[0] * grid // width, position[1] * grid // height)
        return True

    def _show(self) -> None:
        self._picture = compose(self._session)
        if self._screen.get_size() != self._size():
            self._screen = self._pygame.display.set_mode(self._size())
        surface = self._pygame.surfarray.make_surface(self._picture.swapaxes(0, 1))
        self._screen.blit(surface, (0, 0))
        self._pygame.display.flip()
