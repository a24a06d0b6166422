"""The game in a terminal: the image in half blocks of colour, or letters where there is no colour."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from ppd_agents.play.session import HELP, KEYS, Session
from ppd_env.errors import PPDError
from ppd_env.game.actions import NEGATIVE, POSITIVE
from ppd_env.rendering import HIGHLIGHT, INK, MASK, SIGN_COLOURS, TRUTH

_NAMES = {"\x1b[A": "up", "\x1b[B": "down", "\x1b[C": "right", "\x1b[D": "left"}
_NAMES |= {"\x1bO" + code[-1]: name for code, name in _NAMES.items()}
_NAMES |= {" ": "space", "\r": "return", "\n": "return", "\x1b": "escape"}
_SIGNS = {POSITIVE: "+", NEGATIVE: "-"}
_CLEAR, _RESET = "\x1b[2J\x1b[H", "\x1b[0m"
_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"


def has_colour() -> bool:
    """Tell whether the terminal shows colours; ``NO_COLOR`` and ``TERM=dumb`` say no."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def plain_lines(session: Session) -> list[str]:
    """Draw the game in letters, one line per row of patches.

    ``+`` and ``-`` are prompts, ``#`` mask where the object is, ``x`` mask where it is not, ``o`` object
    outside the mask, ``*`` a legal move where asked for; the cursor is in brackets.

    Args:
        session: The game.

    Returns:
        ``grid`` lines.
    """
    mask, truth = _masks(session)
    letters = np.where(mask, np.where(truth, "#", "x"), np.where(truth, "o", "."))
    status = session.status.reshape(session.grid, session.grid)
    if session.shows_legal:
        letters[session.legal_nodes().reshape(status.shape)] = "*"
    for sign, letter in _SIGNS.items():
        letters[status == sign] = letter
    lines = [" " + " ".join(row) + " " for row in letters]
    column, row = session.cursor
    line, at = lines[row], 2 * column
    lines[row] = f"{line[:at]}[{line[at + 1]}]{line[at + 3 :]}"
    return lines


def _masks(session: Session) -> tuple[np.ndarray, np.ndarray]:
    """Return mask and ground truth on the grid, both (grid, grid) bool."""
    games, shape = session.games, (session.grid, session.grid)
    mask = games.feedback()[0].cpu().numpy().reshape(shape) >= 0.5
    truth = games.simulator.bank.truth[int(games.rows[0])].cpu().numpy().reshape(shape)
    return mask, truth


def coloured_lines(session: Session, scale: int) -> list[str]:
    """Draw the game in half blocks: two pixels per character, one above the other.

    Args:
        session: The game.
        scale: Lines per row of patches, from 1 on; a patch is twice as many characters wide.

    Returns:
        ``grid * scale`` lines with colour codes.
    """
    pixels = _tinted(session, session.grid * 2 * scale)
    characters = np.full((len(pixels) // 2, len(pixels)), "▀")
    upper, lower = pixels[0::2].copy(), pixels[1::2].copy()
    marks = session.legal_nodes() if session.shows_legal else np.zeros_like(session.status, bool)
    for node in np.flatnonzero((session.status != 0) | marks):
        row, column = divmod(int(node), session.grid)
        at = (row * scale + scale // 2, column * 2 * scale + scale)
        sign = int(session.status[node])
        characters[at] = _SIGNS.get(sign, "·")
        upper[at] = TRUTH if sign else HIGHLIGHT
        lower[at] = SIGN_COLOURS.get(sign, INK)
    column, row = session.cursor
    middle = row * scale + scale // 2
    for place, bracket in ((column * 2 * scale, "["), ((column + 1) * 2 * scale - 1, "]")):
        if characters[middle, place] == "▀":
            characters[middle, place], upper[middle, place], lower[middle, place] = bracket, INK, HIGHLIGHT
    if scale == 1:  # no room for the closing bracket: the prompt itself stands out
        lower[middle, column * 2 + 1] = HIGHLIGHT
        upper[middle, column * 2 + 1] = INK
    return [
        "".join(_cell(*cell) for cell in zip(*line, strict=True)) + _RESET
        for line in zip(characters, upper, lower, strict=True)
    ]


def _tinted(session: Session, side: int) -> np.ndarray:
    """Return the image with the mask in cyan and the object's rim in white, (side, side, 3) uint8."""
    bank, row = session.games.simulator.bank, int(session.games.rows[0])
    raw = bank.raw(row)
    size = (side, side)
    image = cv2.resize(raw.image, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    found = session.games.simulator.masks_at_native_size(session.games.rows, session.games.logits)[0]
    mask, truth = (
        cv2.resize(m.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5 for m in (found, raw.mask)
    )
    image[mask] = image[mask] * 0.5 + np.array(MASK, np.float32) * 0.5
    inner = cv2.erode(truth.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    image[truth & ~inner] = TRUTH
    return image.astype(np.uint8)


def _cell(character: str, upper: np.ndarray, lower: np.ndarray) -> str:
    front = ";".join(str(value) for value in upper)
    back = ";".join(str(value) for value in lower)
    return f"\x1b[38;2;{front}m\x1b[48;2;{back}m{character}"


def screen(session: Session, colour: bool, columns: int, lines: int) -> str:
    """Return everything a terminal of this size shows, lines joined by carriage return and line feed.

    Args:
        session: The game.
        colour: Draw in colour.
        columns: Width of the terminal in characters.
        lines: Its height.
    """
    left = int(session.games.steps_left[0])
    scale = max(1, min(3, columns // (2 * session.grid), (lines - 4) // session.grid))
    drawn = coloured_lines(session, scale) if colour else plain_lines(session)
    state = f"Dice {session.dice:.3f}   {left} of {int(session.games.steps_total[0])} steps left"
    texts = [text[:columns] for text in (state, session.says, *_wrapped(HELP[session.role], columns))]
    return "\r\n".join([*drawn, *(f"{text}\x1b[K" if colour else text for text in texts)])


def _wrapped(text: str, columns: int) -> list[str]:
    lines = [""]
    for part in text.split("  "):
        if lines[-1] and len(lines[-1]) + len(part) + 2 > columns:
            lines.append("")
        lines[-1] += ("  " if lines[-1] else "") + part
    return lines


def need_terminal() -> None:
    """Make sure that there is a terminal to play in.

    Raises:
        PPDError: Standard input or output is none.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise PPDError(
            "There is neither a display nor a terminal to play in: run ppd play in a terminal, or record an "
            "agent's game with --record FOLDER."
        )


class Terminal:
    """Shows a session in the terminal and reads its keys.

    Args:
        session: The game.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def run(self) -> None:
        """Play until the person has had enough; the terminal is left as it was.

        Raises:
            PPDError: The system's terminals cannot be read key by key.
        """
        colour = has_colour()
        with _unbuffered(colour) as read:
            while not self._session.quit:
                size = shutil.get_terminal_size()
                shown = screen(self._session, colour, *size)
                sys.stdout.write(_CLEAR + shown if colour else f"\r\n{shown}\r\n")
                sys.stdout.flush()
                self._session.command(KEYS.get(read(), ""))
        sys.stdout.write("\n")


@contextmanager
def _unbuffered(colour: bool) -> Iterator[_Reader]:
    """Hand out keys as they are pressed, unseen; Ctrl-C stays what it is."""
    try:
        import termios
        import tty
    except ImportError:
        raise PPDError("Terminals of this system cannot be played in: use a window.") from None
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        if colour:
            sys.stdout.write(_HIDE)
        yield _Reader(sys.stdin.fileno())
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
        if colour:
            sys.stdout.write(_SHOW)
            sys.stdout.flush()


class _Reader:
    """Reads one key at a time from a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._waiting = descriptor, ""

    def __call__(self) -> str:
        """Return the name of the next key; ``escape`` when the terminal is gone."""
        if not self._waiting:
            self._waiting = os.read(self._descriptor, 64).decode(errors="replace")
        if not self._waiting:
            return "escape"
        length = 3 if self._waiting[:3] in _NAMES else 1
        key, self._waiting = self._waiting[:length], self._waiting[length:]
        return _NAMES.get(key, key.lower())
