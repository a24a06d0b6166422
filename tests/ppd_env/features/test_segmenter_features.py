"""The segmenter's own embedding as features, on any grid and any shape of image."""

import numpy as np
import pytest
import torch

from ppd_env.errors import ConfigError
from ppd_env.features.registry import load_features
from ppd_env.features.segmenter import SegmenterFeatures
from ppd_env.segmenters.contract import Embedding
from ppd_env.segmenters.fake import LOW_RES, FakeSegmenter


def ramps(height, width):
    """Red grows from left to right, green from top to bottom, both from 0 to 255."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)[None]
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    return image


@pytest.mark.parametrize("grid", [1, 3, 16, 40, 50])
@pytest.mark.parametrize("size", [(64, 64), (300, 130), (50, 400)])
def test_every_patch_is_described_by_what_lies_in_it(grid, size):
    features = load_features("segmenter:fake")
    found = features.extract(ramps(*size), grid)
    assert found.shape == (grid * grid, features.dim)
    colours = (found * features._scale).view(grid, grid, -1)
    centres = (torch.arange(grid) + 0.5) / grid
    cells = [LOW_RES * side / max(size) for side in size]
    for axis, (channel, many) in enumerate(((1, cells[0]), (0, cells[1]))):
        along = colours[..., channel].mean(dim=1 - axis)
        # A cell of the embedding is the finest there is to tell patches by.
        torch.testing.assert_close(along, centres, rtol=0, atol=1 / many + 0.01)
    assert (colours[..., 2] < 0.01).all()


def test_pooling_an_embedding_is_extracting_from_its_image():
    features = SegmenterFeatures(FakeSegmenter())
    image = ramps(30, 70)
    assert torch.equal(features.pool(FakeSegmenter().embed(image), 5), features.extract(image, 5))


def test_an_embedding_without_a_map_is_refused():
    class Mapless(FakeSegmenter):
        def embed(self, image):
            return Embedding({"tokens": torch.zeros(1, 4, 3)}, torch.tensor([image.shape[:2]]))

    with pytest.raises(ConfigError, match="keeps no"):
        SegmenterFeatures(Mapless())
