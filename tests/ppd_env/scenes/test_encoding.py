"""Each image is encoded once, whatever bank it appears in and however often a build is stopped."""

import resource
import shutil
import warnings

import numpy as np
import pytest
import torch

from ppd_env.errors import ConfigError
from ppd_env.features.fake import FakeFeatures
from ppd_env.features.segmenter import SegmenterFeatures
from ppd_env.paths import cache_dir
from ppd_env.scenes import sources
from ppd_env.scenes.bank import build_bank
from ppd_env.scenes.encoding import Encoder, EncodingCache
from ppd_env.scenes.image_cache import image_digest
from ppd_env.scenes.scene import RawScene
from ppd_env.segmenters.fake import FakeSegmenter

GRID = 4


class CountedSegmenter(FakeSegmenter):
    """Counts the images it embeds; may be interrupted before one of them."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.embedded, self.stop_at = 0, stop_at

    def embed(self, image):
        if self.embedded == self.stop_at:
            raise KeyboardInterrupt
        self.embedded += 1
        return super().embed(image)


class CountedFeatures(FakeFeatures):
    """Counts the images it describes."""

    described = 0

    def extract(self, image, grid):
        self.described += 1
        return super().extract(image, grid)


class NumberedSource:
    """``numbered://FIRST-LAST``: image i is the same in every source; two masks of it are two scenes."""

    salt = 0

    def __init__(self, uri):
        self.uri = uri.text
        first, _, last = uri.path.partition("-")
        self.numbers = range(int(first), int(last) + 1)
        self.signature = f"numbered-{uri.path}"
        self.reads = 0

    def __len__(self):
        return 2 * len(self.numbers)

    def __getitem__(self, index):
        self.reads += 1
        number, side = self.numbers[index // 2], index % 2
        image = np.random.default_rng(number + self.salt).integers(0, 255, (20, 20 + number, 3), np.uint8)
        mask = np.zeros(image.shape[:2], bool)
        mask[side * 10 : side * 10 + 10] = True
        return RawScene(f"{number}-{side}", image, mask, str(number))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sources.OPENERS, "numbered", NumberedSource)
    monkeypatch.setattr(sources, "_opened", {})


def models(**options):
    return CountedSegmenter(**options), CountedFeatures()


def files(kind):
    return sorted((cache_dir() / "embeddings").glob(f"{kind}-*/*"))


def assert_same(one, other):
    assert one.names == other.names
    for name in ("features", "points", "truth", "peak", "target", "valid"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert torch.equal(one.embedding.sizes, other.embedding.sizes)
    assert torch.equal(one.embedding.tensors["image"], other.embedding.tensors["image"])


def test_an_image_is_encoded_once_whatever_bank_it_appears_in():
    segmenter, features = models()
    build_bank("numbered://0-3", segmenter, features, GRID)
    assert (segmenter.embedded, features.described) == (4, 4)
    second = build_bank("numbered://2-5", segmenter, features, GRID)
    assert (segmenter.embedded, features.described) == (6, 6)
    assert_same(second, build_bank("numbered://2-5", *models(), GRID, cache=False))
    assert len(files("segmenter")) == len(files("features")) == 6


def test_opening_a_bank_again_reads_no_scene_and_encodes_nothing():
    build_bank("numbered://0-3", *models(), GRID)
    source = sources.open_source("numbered://0-3")
    read = source.reads
    segmenter, features = models()
    bank = build_bank("numbered://0-3", segmenter, features, GRID)
    assert (source.reads, segmenter.embedded, features.described) == (read, 0, 0)
    assert_same(bank, build_bank("numbered://0-3", *models(), GRID, cache=False))


@pytest.mark.parametrize("change", ["segmenter", "features", "grid"])
def test_only_the_part_that_changed_is_encoded_again(change, monkeypatch):
    build_bank("numbered://0-3", *models(), GRID)
    if change != "grid":
        owner = {"segmenter": CountedSegmenter, "features": CountedFeatures}[change]
        monkeypatch.setattr(owner, "signature", "another")
    segmenter, features = models()
    build_bank("numbered://0-3", segmenter, features, GRID + (change == "grid"))
    assert segmenter.embedded == (4 if change == "segmenter" else 0)
    assert features.described == (0 if change == "segmenter" else 4)


def test_the_segmenters_own_features_cost_no_second_pass_and_no_second_file():
    segmenter = CountedSegmenter()
    features = SegmenterFeatures(segmenter)
    begun = segmenter.embedded
    bank = build_bank("numbered://0-3", segmenter, features, GRID)
    assert segmenter.embedded - begun == 4
    assert files("features") == []
    for row in range(len(bank)):
        torch.testing.assert_close(bank.features[row], features.extract(bank.raw(row).image, GRID))


def test_features_of_another_segmenter_are_kept_as_any_others():
    build_bank("numbered://0-3", CountedSegmenter(), SegmenterFeatures(FakeSegmenter()), GRID)
    assert files("features") == []  # both are the same segmenter
    other = FakeSegmenter()
    other.signature = "another"
    build_bank("numbered://0-3", CountedSegmenter(), SegmenterFeatures(other), GRID)
    assert len(files("features")) == 4


def test_an_interrupted_build_goes_on_where_it_stopped():
    with pytest.raises(KeyboardInterrupt):
        build_bank("numbered://0-3", *models(stop_at=3), GRID)
    segmenter, features = models()
    bank = build_bank("numbered://0-3", segmenter, features, GRID)
    assert (segmenter.embedded, features.described) == (1, 1)
    assert_same(bank, build_bank("numbered://0-3", *models(), GRID, cache=False))


def test_a_truncated_file_is_built_again_from_its_own_scene():
    first = build_bank("numbered://0-3", *models(), GRID)
    path = files("segmenter")[2]
    path.write_bytes(path.read_bytes()[:-7])
    source = sources.open_source("numbered://0-3")
    source.reads = 0
    segmenter, features = models()
    with pytest.warns(UserWarning, match="cannot be used .* computed again") as caught:
        second = build_bank("numbered://0-3", segmenter, features, GRID)
    assert len(caught) == 1
    assert (source.reads, segmenter.embedded, features.described) == (1, 1, 0)
    assert_same(first, second)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build_bank("numbered://0-3", segmenter, features, GRID)


def test_a_source_with_other_images_than_it_says_is_read_again(monkeypatch):
    build_bank("numbered://0-3", *models(), GRID)
    shutil.rmtree(cache_dir() / "embeddings")
    monkeypatch.setattr(NumberedSource, "salt", 100)
    with pytest.warns(UserWarning, match="has another image now"):
        bank = build_bank("numbered://0-3", *models(), GRID)
    assert_same(bank, build_bank("numbered://0-3", *models(), GRID, cache=False))


def test_a_full_disk_is_reported_once_and_nothing_is_lost():
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        with pytest.warns(UserWarning, match=r"could not be kept in .*the run goes on without") as caught:
            bank = build_bank("numbered://0-3", *models(), GRID)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(caught) == 1
    assert_same(bank, build_bank("numbered://0-3", *models(), GRID, cache=False))
    assert files("segmenter") == []
    segmenter, features = models()
    build_bank("numbered://0-3", segmenter, features, GRID)
    assert (segmenter.embedded, features.described) == (4, 4)
    assert len(files("segmenter")) == 4


def test_the_cache_knows_what_is_missing_and_what_it_could_not_keep(monkeypatch):
    encoder = Encoder(*models(), GRID)
    store = EncodingCache(encoder.facts)
    image = np.zeros((5, 6, 3), np.uint8)
    digest = image_digest(image)
    assert store.missing(digest) == ("segmenter", "features")
    assert store.write(digest, encoder.compute(image, ["features"]))
    assert store.missing(digest) == ("segmenter",)
    assert store.written == files("features")[0].stat().st_size
    shutil.rmtree(cache_dir())
    cache_dir().write_text("no folder")
    with pytest.warns(UserWarning, match="could not be kept"):
        assert not store.write(digest, encoder.compute(image, store.missing(digest)))
    assert store.refusals == 2


def test_a_grid_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="grid must be at least 1"):
        Encoder(*models(), 0)
