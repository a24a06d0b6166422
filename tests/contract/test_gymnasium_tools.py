"""Gymnasium's own tools for looking at an environment: RecordVideo, PlayableGame and play."""

import sys
import types
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pygame
import pytest
from gymnasium.utils.play import PlayableGame, play
from gymnasium.wrappers import RecordVideo

import ppd_env  # noqa: F401


@pytest.fixture
def env(tiny_kwargs):
    env = gym.make("PPD-v0", render_mode="rgb_array", defence_steps=3, attack_steps=2, **tiny_kwargs)
    yield env
    env.close()


def test_record_video_gets_a_picture_of_every_step(env, tmp_path, monkeypatch):
    """The writing itself needs moviepy, see test_play.py; what it is handed does not."""
    monkeypatch.setitem(sys.modules, "moviepy", types.ModuleType("moviepy"))
    film = RecordVideo(env, str(tmp_path), episode_trigger=lambda _: True)
    assert film.frames_per_sec == env.metadata["render_fps"] == 4
    film.reset(seed=0)
    over = False
    while not over:
        legal = np.flatnonzero(env.get_wrapper_attr("action_masks")()[:-1])
        _, _, terminated, truncated, _ = film.step(legal[0])
        over = terminated or truncated
    frames = film.recorded_frames
    assert len(frames) == 4
    assert {frame.shape for frame in frames} == {frames[0].shape}
    assert frames[0].dtype == np.uint8
    assert all((one != other).any() for one, other in pairwise(frames))
    film.recorded_frames, film.recording = [], False


def test_play_shows_the_environment_and_plays_its_keys(env, monkeypatch):
    stop = int(env.action_space.n) - 1
    seen = []
    monkeypatch.setattr(pygame.event, "get", iter([[], [pygame.event.Event(pygame.QUIT)]]).__next__)
    monkeypatch.setattr(pygame, "quit", lambda: None)
    play(
        env, keys_to_action={"s": stop}, noop=stop, seed=0, fps=60,
        callback=lambda *step: seen.append(step[2]),
    )  # fmt: skip
    assert seen == [stop]
    assert PlayableGame(env, {(ord("s"),): stop}).original_video_size == env.render().shape[1::-1]
