"""photos://: counts, the split, and masks that fit their photographs."""

import numpy as np
import pytest

from ppd_env.errors import ConfigError, SceneError
from ppd_env.scenes import photos
from ppd_env.scenes.patches import nodes_inside, peak_node
from ppd_env.scenes.photo_split import TEST_PHOTOGRAPHS, TRAIN_PHOTOGRAPHS
from ppd_env.scenes.photos import PhotosSource, photograph, textures, train_photographs
from ppd_env.uris import parse_uri


def source(split):
    return PhotosSource(parse_uri(f"photos://{split}"))


@pytest.fixture(scope="module", params=["train", "test"])
def side(request):
    return source(request.param)


def test_enough_scenes_on_both_sides():
    train, test = source("train"), source("test")
    assert len(train) + len(test) >= 25
    assert len(test) >= 10
    assert len({scene.group for scene in test}) >= 4


def test_no_photograph_lies_on_both_sides():
    assert not set(TRAIN_PHOTOGRAPHS) & set(TEST_PHOTOGRAPHS)
    seen = {split: {scene.group for scene in source(split)} for split in ("train", "test")}
    assert not seen["train"] & seen["test"]


def test_both_views_of_the_motorcycle_are_one_group_on_one_side():
    views = {"motorcycle_left", "motorcycle_right"}
    assert views <= set(TRAIN_PHOTOGRAPHS) or views <= set(TEST_PHOTOGRAPHS)
    scenes = [scene for scene in source("train") if scene.name.startswith("motorcycle")]
    assert {scene.name.split("/")[0] for scene in scenes} == views
    assert {scene.group for scene in scenes} == {"motorcycle"}


def test_every_mask_fits_its_image_and_leaves_background(side):
    for scene in side:
        assert scene.image.shape == (*scene.mask.shape, 3), scene.name
        assert scene.image.dtype == np.uint8
        assert scene.mask.dtype == bool
        assert 0.004 < scene.mask.mean() < 0.8, scene.name


def test_every_mask_can_be_prompted_on_the_default_grid(side):
    for scene in side:
        inside = nodes_inside(scene.mask, 16)
        assert inside[peak_node(scene.mask, 16)], scene.name
        assert not inside.all()


def test_names_are_unique_and_scenes_are_repeatable(side):
    names = [scene.name for scene in side]
    assert len(set(names)) == len(names)
    again = source(side.split)
    assert again.signature == side.signature
    np.testing.assert_array_equal(again[0].mask, side[0].mask)
    np.testing.assert_array_equal(again[0].image, side[0].image)


def test_scenes_can_be_written_to_without_harm(side):
    first = side[0]
    expected = first.image.copy()
    first.image[:] = 0
    np.testing.assert_array_equal(side[0].image, expected)


def test_training_photographs_hold_none_of_the_test_side():
    trained = train_photographs()
    assert set(trained) == set(TRAIN_PHOTOGRAPHS)
    for held_out in map(photograph, TEST_PHOTOGRAPHS):
        assert not any(np.array_equal(held_out, image) for image in trained.values())


def test_photographs_and_textures_are_rgb():
    for image in [*train_photographs().values(), *textures().values()]:
        assert image.ndim == 3
        assert image.shape[2] == 3
        assert image.dtype == np.uint8
        assert not image.flags.writeable
    assert set(textures()) == {"brick", "grass", "gravel"}


def test_holes_are_cut_and_views_crop():
    objects = {entry.name: entry for entry in photos.photo_objects("coffee")}
    rim, cup = objects["cup_rim"], objects["cup"]
    assert rim.holes
    assert not rim.mask()[120, 290]
    assert cup.mask()[120, 290]
    tower = next(entry for entry in photos.photo_objects("camera") if entry.name == "tower")
    left, top, right, bottom = tower.view
    assert tower.mask().shape == (bottom - top, right - left)


def test_another_picture_under_the_same_name_is_an_error(monkeypatch):
    monkeypatch.setattr(photos, "photograph", lambda name: np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(SceneError, match=r"chelsea.*its masks were drawn on"):
        source("test")[0]


def test_wrong_uris():
    with pytest.raises(ConfigError, match="photos://train or photos://test"):
        source("val")
    with pytest.raises(ConfigError, match="unknown key 'count'"):
        source("train?count=3")
    with pytest.raises(ConfigError, match="Unknown photograph 'dog'"):
        photograph("dog")
    with pytest.raises(IndexError):
        source("train")[1000]
