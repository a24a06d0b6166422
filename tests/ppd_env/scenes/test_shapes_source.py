"""Procedural scenes: frozen, seeded, endless, and with the difficulties they promise."""

import hashlib

import cv2
import numpy as np
import pytest

from ppd_env.errors import ConfigError
from ppd_env.scenes.shapes import ShapesConfig, ShapesSource, draw_scene
from ppd_env.uris import parse_uri


def source(uri="shapes://train?count=8&seed=0"):
    return ShapesSource(parse_uri(uri))


def same(left, right):
    return np.array_equal(left.image, right.image) and np.array_equal(left.mask, right.mask)


def test_a_scene_depends_on_split_seed_and_index_only():
    few, many = source(), source("shapes://train?count=5000&seed=0")
    assert same(few[3], many[3])
    assert same(few[3], source()[3])
    assert not same(few[3], few[4])
    assert not same(few[3], source("shapes://test?count=8&seed=0")[3])
    assert not same(few[3], source("shapes://train?count=8&seed=1")[3])


def test_scenes_are_what_the_contract_says():
    low, high = ShapesConfig().target_area
    for index in range(8):
        scene = source()[index]
        assert scene.image.shape == (256, 256, 3)
        assert scene.image.dtype == np.uint8
        assert scene.mask.dtype == np.bool_
        assert low <= scene.mask.mean() <= high
        assert scene.group == scene.name


def test_the_generator_is_frozen():
    """A change of what is drawn must raise GENERATOR_VERSION, and then this digest."""
    assert ShapesConfig().digest() == "4947072e48debccb"
    masks = np.packbits(np.stack([source()[index].mask for index in range(4)]))
    assert hashlib.sha256(masks.tobytes()).hexdigest()[:16] == "fbe4df061f94c791"
    # Colours may differ in their last digit between processors, so they are compared by their means.
    means = [source()[index].image.mean(axis=(0, 1)) for index in range(4)]
    drawn = [
        [134.01, 86.0, 113.32],
        [136.59, 107.21, 115.9],
        [61.73, 139.82, 130.95],
        [128.85, 53.21, 113.62],
    ]
    np.testing.assert_allclose(means, drawn, atol=0.2)


def test_the_signature_follows_the_configuration():
    assert ShapesConfig().digest() != ShapesConfig(twin=0.3).digest()
    assert ShapesConfig().digest() in source().signature


def test_some_objects_are_occluded_have_holes_or_several_parts():
    rng = np.random.default_rng(0)
    masks = [mask for _ in range(40) for mask in draw_scene(ShapesConfig(), rng).masks if mask.sum() > 400]
    pieces = [cv2.connectedComponents(mask.astype(np.uint8))[0] - 1 for mask in masks]
    holes = [cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)[0] - 1 for mask in masks]
    assert sum(count > 1 for count in pieces) >= 5
    assert sum(count > 1 for count in holes) >= 5


def test_visible_parts_of_objects_never_overlap():
    rng = np.random.default_rng(1)
    for _ in range(10):
        assert draw_scene(ShapesConfig(), rng).masks.sum(axis=0).max() <= 1


@pytest.mark.parametrize(
    "uri",
    [
        "shapes://nowhere",
        "shapes://train?size=3",
        "shapes://train?count=0",
        "shapes://train?count=many",
        "shapes://train?seed=-1",
    ],
)
def test_impossible_uris_are_refused(uri):
    with pytest.raises(ConfigError, match="shapes://"):
        source(uri)


@pytest.mark.parametrize("index", [-1, 8])
def test_indices_out_of_range_are_refused(index):
    with pytest.raises(IndexError):
        source()[index]
