"""What a picture shows."""

import gymnasium as gym
import numpy as np
import pytest

from ppd_env.errors import ConfigError
from ppd_env.rendering import BAR, HIGHLIGHT, LARGEST_SIDE, MASK, SIGN_COLOURS, SMALLEST_SIDE, Frame, draw
from ppd_env.scenes.scene import RawScene


def frame(status, changed=(), mask=None, size=(60, 90)):
    truth = np.zeros(size, bool)
    truth[10:50, 20:70] = True
    image = np.full((*size, 3), 90, np.uint8)
    grid = 6
    axis = (np.arange(grid) + 0.5) / grid
    x, y = np.meshgrid(axis * size[1], axis * size[0])
    values, touched = np.zeros(grid * grid, np.int8), np.zeros(grid * grid, bool)
    for node, value in status.items():
        values[node] = value
    touched[list(changed)] = True
    return Frame(
        RawScene("one", image, truth, "one"),
        np.zeros(size, bool) if mask is None else mask,
        np.stack([x.ravel(), y.ravel()], 1).astype(np.float32),
        values,
        touched,
        ("Dice 0.500", "legend"),
    )


def has(picture, colour):
    return bool((np.abs(picture.astype(int) - colour).max(axis=2) <= 2).any())


def test_signs_and_highlights_have_their_colours():
    blank = draw(frame({}))
    assert not has(blank, SIGN_COLOURS[1])
    assert not has(blank, SIGN_COLOURS[2])
    assert not has(blank, HIGHLIGHT)
    assert not has(blank, MASK)
    assert has(draw(frame({3: 1})), SIGN_COLOURS[1])
    assert has(draw(frame({3: 2})), SIGN_COLOURS[2])
    assert has(draw(frame({3: 2}, changed=[3])), HIGHLIGHT)
    assert has(draw(frame({}, changed=[3])), HIGHLIGHT)


def test_the_mask_is_outlined_and_tinted():
    mask = np.zeros((60, 90), bool)
    mask[20:55, 30:80] = True
    picture, blank = draw(frame({}, mask=mask)), draw(frame({}))
    assert has(picture, MASK)
    inside, outside = picture[220, 300], picture[20, 20]
    assert inside[2] > blank[220, 300][2] + 20
    assert np.array_equal(outside, blank[20, 20])


@pytest.mark.parametrize(
    ("size", "longer"),
    [((60, 90), SMALLEST_SIDE), ((600, 700), 700), ((100, 3000), LARGEST_SIDE), ((3000, 9), LARGEST_SIDE)],
)
def test_pictures_have_a_readable_size(size, longer):
    height, width, _ = draw(frame({0: 1, 35: 2}, size=size)).shape
    assert max(height - BAR, width) == longer


def test_the_modes(tiny_kwargs):
    env = gym.make("PPD-v0", render_mode="rgb_array", **tiny_kwargs)
    env.reset(seed=0)
    before = env.render()
    _, _, _, _, info = env.step(int(np.flatnonzero(env.get_wrapper_attr("action_masks")())[0]))
    after = env.render()
    assert before.shape == after.shape
    assert has(after, HIGHLIGHT)
    assert not has(before, HIGHLIGHT)
    assert info["dice"] != info["ideal_dice"]
    window = gym.make("PPD-v0", render_mode="human", **tiny_kwargs)
    window.reset(seed=0)
    assert window.render() is None
    window.close()
    with pytest.raises(ConfigError, match="render_mode"):
        gym.make("PPD-v0", disable_env_checker=True, **tiny_kwargs).unwrapped.__class__("ansi", **tiny_kwargs)
