"""Training scenes made of procedural images and of photographs."""

import numpy as np
import pytest

from ppd_env.errors import ConfigError
from ppd_env.scenes import mixed, photos
from ppd_env.scenes.photo_split import TRAIN_PHOTOGRAPHS
from ppd_env.scenes.sources import open_source

URI = "mixed://train?count=12&seed=1"


def test_a_scene_depends_on_seed_and_index_alone():
    scenes, more = open_source(URI), open_source("mixed://train?count=40&seed=1")
    other = open_source("mixed://train?count=12&seed=2")
    for index in (0, 5, 11):
        assert np.array_equal(scenes[index].image, more[index].image)
        assert np.array_equal(scenes[index].mask, more[index].mask)
        assert not np.array_equal(scenes[index].image, other[index].image)


def test_every_kind_is_drawn_with_targets_of_the_promised_size():
    scenes = open_source("mixed://train?count=30&seed=0")
    drawn = [scenes[index] for index in range(len(scenes))]
    assert {scene.name.split("-")[1] for scene in drawn} == set(mixed.SHARES)
    low, high = scenes.config.target_area
    for scene in drawn:
        assert scene.image.shape == (mixed.SIDE, mixed.SIDE, 3)
        assert scene.image.dtype == np.uint8
        assert low <= scene.mask.mean() <= high


def test_nothing_but_the_training_photographs_is_in_the_pool(monkeypatch):
    asked, real = set(), photos.photograph
    monkeypatch.setattr(photos, "photograph", lambda name: asked.add(name) or real(name))
    monkeypatch.setattr(mixed.PhotoPool, "_segment", staticmethod(lambda photo: []))
    mixed.PhotoPool()
    assert asked == set(TRAIN_PHOTOGRAPHS)


@pytest.mark.parametrize("uri", ["mixed://test", "mixed://train?count=0", "mixed://train?size=3"])
def test_what_it_does_not_have_is_refused(uri):
    with pytest.raises(ConfigError):
        open_source(uri)
    with pytest.raises(IndexError):
        open_source(URI)[12]
