"""Segmenters and features by URI."""

import numpy as np
import pytest
import torch
from skimage import data

from ppd_env.errors import ConfigError
from ppd_env.features.contract import FeatureExtractor
from ppd_env.features.registry import load_features
from ppd_env.segmenters.contract import Segmenter
from ppd_env.segmenters.registry import load_segmenter


def test_one_of_each_per_process():
    assert load_segmenter("fake") is load_segmenter("fake", torch.device("cpu"))
    assert load_features("fake") is load_features("fake")
    assert isinstance(load_segmenter("fake"), Segmenter)
    assert isinstance(load_features("fake"), FeatureExtractor)


@pytest.mark.parametrize("load", [load_segmenter, load_features])
def test_unknown_schemes_are_errors_that_list_the_known_ones(load):
    with pytest.raises(ConfigError, match=r"nonsense.*fake, mini"):
        load("nonsense:abc")
    for surplus in ("fake?size=3", "fake:zzz"):
        with pytest.raises(ConfigError, match="takes nothing after its name"):
            load(surplus)
    with pytest.raises(ConfigError, match="abacus"):
        load("fake", "abacus")


def test_fake_features_are_mean_colours():
    image = np.zeros((6, 4, 3), np.uint8)
    image[:3, 2:] = 255
    features = load_features("fake").extract(image, 2)
    assert features.shape == (4, 3)
    assert (features[1] > 1).all()
    assert not features[[0, 2, 3]].any()


def test_segmenter_features_follow_the_image_not_its_padding():
    features = load_features("segmenter:fake")
    image = np.zeros((20, 40, 3), np.uint8)
    image[:10] = [255, 0, 0]
    image[10:] = [0, 0, 255]
    described = features.extract(image, 4)
    assert described.shape == (16, features.dim) == (16, 3)
    assert torch.equal(described[:8], described[:1].expand(8, 3))
    assert torch.equal(described[8:], described[-1:].expand(8, 3))
    assert described[0, 0] == described[-1, 2] > 1
    assert described[0, 2] == described[-1, 0] == 0


def test_segmenter_features_of_random_patches_lie_about_one_apart():
    described = load_features("segmenter:fake").extract(data.chelsea(), 16)
    assert 0.3 < torch.pdist(described).mean() < 3


def test_the_features_of_mini_are_those_of_the_package():
    with pytest.raises(ConfigError, match="takes nothing after its name"):
        load_features("mini:/no/file")


def test_segmenter_features_must_name_their_segmenter():
    with pytest.raises(ConfigError, match="segmenter:mini"):
        load_features("segmenter")
