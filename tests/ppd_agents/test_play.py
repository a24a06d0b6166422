"""A person at the game: commands, the window under posted events, a real pseudo-terminal, recordings."""

import os
import re
import select
import subprocess
import sys
import time

import numpy as np
import pygame
import pytest
from PIL import Image

from ppd_agents import cli
from ppd_agents.play import window
from ppd_agents.play.recording import record
from ppd_agents.play.session import Session, opponent_uri
from ppd_agents.play.terminal import coloured_lines, plain_lines, screen
from ppd_agents.play.window import STRIP, Window, compose
from ppd_agents.play_command import Play
from ppd_env.errors import PPDError
from ppd_env.game.actions import POSITIVE
from ppd_env.rendering import BAR, SIGN_COLOURS

GRID = 6


def options(**changes):
    fields = {"scenes": "tiny://", "segmenter": "fake", "features": "fake", "grid": GRID, "steps": 3}
    return Play(**{**fields, "opponent": "random", "seed": 1, **changes})


@pytest.fixture
def defender():
    session = Session(options())
    yield session
    session.close()


def at_prompt(session, sign=None):
    """Put the cursor on a prompt that may be removed."""
    legal = session.legal()[:-1].reshape(2, -1)
    node = int(np.flatnonzero(legal.any(axis=0) if sign is None else legal[sign])[0])
    session.point_at(node % GRID, node // GRID)
    return node


def test_the_opponent_attacks_before_a_defender_begins(defender):
    assert "before the attack" in defender.says
    assert (defender.status != 0).sum() >= 3


def test_a_defender_removes_the_prompt_under_the_cursor(defender):
    node, before = at_prompt(defender), defender.status
    defender.command("act")
    assert before[node] != 0
    assert defender.status[node] == 0
    assert (defender.status != before).sum() == 1
    assert defender.says.startswith("Prompt removed: Dice ")


def test_illegal_moves_are_explained_and_cost_nothing(defender):
    node = int(np.flatnonzero(defender.status == 0)[0])
    defender.point_at(node % GRID, node // GRID)
    defender.command("act")
    assert defender.says == "There is no prompt in this patch."
    assert int(defender.games.steps_left[0]) == 3


def test_stop_ends_the_game_and_new_begins_another(defender):
    defender.command("stop")
    assert defender.over
    assert defender.games_played == 1
    before = defender.status
    defender.command("act")
    assert (defender.status == before).all()
    assert not defender.legal_nodes().any()
    defender.command("new")
    assert not defender.over
    assert int(defender.games.steps_left[0]) == 3


def test_the_cursor_stays_inside(defender):
    for _ in range(2 * GRID):
        defender.command("left")
        defender.command("down")
    assert defender.cursor == (0, GRID - 1)
    assert defender.node == GRID * (GRID - 1)


def test_an_attacker_is_answered_by_a_defence():
    session = Session(options(role="attacker", opponent="oracle", steps=2))
    free = np.flatnonzero(session.status == 0)
    for node, word, sign in ((free[0], "negative", 2), (free[1], "act", 1)):
        session.point_at(node % GRID, node // GRID)
        count = (session.status != 0).sum()
        over_next = word == "act"
        session.command(word)
        if not over_next:
            assert session.status[node] == sign
            assert (session.status != 0).sum() == count + 1
    assert session.over
    found = re.fullmatch(
        r"Over: you brought Dice from (\S+) to (\S+), and the defence left it at (\S+)\. r: .*", session.says
    )
    assert float(found[3]) >= float(found[2])  # the oracle never makes it worse
    assert found[3] == f"{session.dice:.2f}"


@pytest.mark.parametrize(
    ("name", "role", "uri"),
    [
        ("oracle?pool=3", "attacker", "oracle?pool=3"),
        ("a.b:c?path=x", "attacker", "a.b:c?path=x"),
        ("mini", "attacker", "ppd_agents.defender:load_opponent?path=mini&role=attacker&stop=false"),
        (
            "my runs/x&y",
            "defender",
            "ppd_agents.defender:load_opponent?path=my%20runs/x%26y&role=defender&stop=true",
        ),
        (
            "hf://me/it",
            "defender",
            "ppd_agents.defender:load_opponent?path=hf%3A//me/it&role=defender&stop=true",
        ),
    ],
)
def test_names_of_opponents(name, role, uri):
    assert opponent_uri(name, role) == uri


def test_the_window_shows_cursor_legal_moves_and_what_happened(defender):
    plain = compose(defender)
    assert plain.shape[0] == np.asarray(defender.env.render()).shape[0] + STRIP
    defender.command("right")
    moved = compose(defender)
    assert (moved != plain).any()
    defender.command("legal")
    assert (compose(defender)[: -BAR - STRIP] != moved[: -BAR - STRIP]).any()


def post(kind, **values):
    pygame.event.post(pygame.event.Event(kind, **values))


def test_keys_clicks_and_closing_the_window(defender):
    node = at_prompt(defender)
    defender.point_at(0, 0)
    shown = Window(defender)
    width, height = shown._picture.shape[1], shown._picture.shape[0] - BAR - STRIP
    place = (int((node % GRID + 0.5) * width / GRID), int((node // GRID + 0.5) * height / GRID))
    below = (5, height + 3)
    post(pygame.MOUSEMOTION, pos=place, rel=(0, 0), buttons=(0, 0, 0))
    post(pygame.MOUSEBUTTONDOWN, pos=below, button=1)
    post(pygame.MOUSEBUTTONDOWN, pos=place, button=1)
    post(pygame.KEYDOWN, key=pygame.K_l, mod=0, unicode="l")
    post(pygame.KEYDOWN, key=pygame.K_s, mod=0, unicode="s")
    post(pygame.QUIT)
    shown.run()
    assert defender.status[node] == 0
    assert defender.cursor == (node % GRID, node // GRID)
    assert defender.shows_legal
    assert defender.games_played == 1
    assert defender.quit


def test_no_window_can_be_opened(defender, monkeypatch):
    monkeypatch.setattr(
        pygame.display, "set_mode", lambda _: (_ for _ in ()).throw(pygame.error("no device"))
    )
    with pytest.raises(PPDError, match="--terminal"):
        Window(defender)


def test_letters_say_what_each_patch_holds(defender):
    node = at_prompt(defender, sign=1)
    lines = plain_lines(defender)
    assert len(lines) == GRID
    column, row = node % GRID, node // GRID
    assert lines[row][2 * column : 2 * column + 3] == "[-]"
    truth = defender.games.simulator.bank.truth[int(defender.games.rows[0])].numpy().reshape(GRID, GRID)
    mask = defender.games.feedback()[0].numpy().reshape(GRID, GRID) >= 0.5
    letters = {(True, True): "#", (True, False): "x", (False, True): "o", (False, False): "."}
    for place in np.argwhere(defender.status.reshape(GRID, GRID) == 0):
        assert (
            lines[place[0]][2 * place[1] + 1] == letters[bool(mask[tuple(place)]), bool(truth[tuple(place)])]
        )


@pytest.mark.parametrize("scale", [1, 2])
def test_colours_fill_their_cells(defender, scale):
    lines = coloured_lines(defender, scale)
    bare = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines]
    assert len(bare) == GRID * scale
    assert {len(line) for line in bare} == {GRID * 2 * scale}
    signs = sum(line.count("+") + line.count("-") for line in bare)
    assert signs == (defender.status != 0).sum()


def test_the_screen_fits_a_small_terminal(defender):
    lines = screen(defender, False, 40, 12).split("\r\n")
    assert max(len(line) for line in lines) <= 40
    assert "3 of 3 steps left" in "\n".join(lines)


def read_until(master, text, seconds=180):
    seen, end = "", time.monotonic() + seconds
    while text not in seen and time.monotonic() < end:
        if select.select([master], [], [], 0.2)[0]:
            try:
                seen += os.read(master, 65536).decode(errors="replace")
            except OSError:
                break
    return seen


@pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
def test_a_game_in_a_real_terminal(tmp_path):
    import pty

    master, slave = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("SDL_VIDEODRIVER", "DISPLAY", "NO_COLOR")}
    words = ["play", "--scenes", "shapes://train?count=2", "--segmenter", "fake", "--features", "fake"]
    words += ["--grid", "6", "--steps", "2", "--opponent", "random", "--terminal"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ppd_agents", *words],
        stdin=slave, stdout=slave, stderr=slave,
        env=environment | {"TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(slave)
    try:
        began = read_until(master, "q: quit")
        assert "2 of 2 steps left" in began
        assert "\x1b[48;2;" in began
        os.write(master, b"\x1b[Al")
        os.write(master, b"s")
        assert "Over: you brought Dice from" in read_until(master, "Over: you brought")
        os.write(master, b"q")
        assert "1 game played." in read_until(master, "played.")
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        os.close(master)


def test_without_display_and_terminal_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr("ppd_agents.play.window.has_display", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["play"])
    assert stopped.value.code == 2
    assert "neither a display nor a terminal" in capsys.readouterr().err


def test_where_a_window_can_be_expected(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not window.has_display()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert window.has_display()


def test_recording_writes_every_picture_of_a_game(tmp_path):
    (path,) = record(options(player="random", steps=4), tmp_path / "films")
    assert path.name == "defender-episode-0.gif"
    with Image.open(path) as film:
        assert film.n_frames == 5  # the start, and one for each step
        durations = []
        for number in range(film.n_frames):
            film.seek(number)
            durations.append(film.info["duration"])
            shown = {colour for _, colour in film.convert("RGB").getcolors(1 << 24)}
            assert SIGN_COLOURS[POSITIVE] in shown
    assert durations == [250, 250, 250, 250, 2000]
    assert list(path.parent.iterdir()) == [path]


def test_recordings_follow_the_seed(tmp_path):
    made = [
        record(options(player="random", seed=s, episodes=2), tmp_path / str(n))
        for n, s in enumerate((5, 5, 6))
    ]
    first, again, other = ([path.read_bytes() for path in paths] for paths in made)
    assert first == again
    assert first != other
    assert first[0] != first[1]


def test_mp4_needs_a_package_and_says_which(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "moviepy", None)
    with pytest.raises(PPDError, match=r"moviepy.*--video gif"):
        record(options(player="random", video="mp4"), tmp_path)


def test_mp4_by_record_video(tmp_path):
    pytest.importorskip(
        "moviepy", reason="pip install 'point-prompt-defender[video]' in an environment of its own"
    )
    import imageio_ffmpeg

    (path,) = record(options(player="random", video="mp4", steps=4), tmp_path)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert frames == 5
    assert seconds == pytest.approx(5 / 4, abs=0.1)
