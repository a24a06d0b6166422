"""One file per image and model: whole, its own, safe with several processes, and honest about a full disk."""

import multiprocessing
import os
import resource
import shutil
import time
import warnings

import numpy as np
import pytest
import torch

from ppd_env.scenes import image_cache
from ppd_env.scenes.image_cache import ImageCache, image_digest

IMAGE = image_digest(np.zeros((2, 3, 3), np.uint8))
OTHER = image_digest(np.ones((2, 3, 3), np.uint8))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path))
    return tmp_path


def tensors():
    many = torch.arange(600, dtype=torch.float32).view(1, 20, 30)
    return {
        "view": many.transpose(1, 2),
        "same": many,
        "half": many.bfloat16(),
        "sizes": torch.tensor([[4, 5]]),
        "mask": many > 300,
        "none": torch.zeros(1, 0),
    }


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


def test_digests_are_of_pixels_and_shape():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert image_digest(image) == image_digest(np.asfortranarray(image)) == image_digest(image.copy())
    changed = image.copy()
    changed[1, 3, 2] += 1
    others = [changed, image.reshape(4, 2, 3), image[:, ::-1]]
    assert len({image_digest(one) for one in (image, *others)}) == 4


def test_what_is_written_is_read():
    cache = ImageCache("segmenter", "model:with/odd signs")
    assert cache.read(IMAGE) is None
    assert not cache.holds(IMAGE)
    written = cache.write(IMAGE, tensors())
    assert written == cache.path(IMAGE).stat().st_size
    assert cache.holds(IMAGE)
    assert not cache.holds(OTHER)
    assert_equal(ImageCache("segmenter", "model:with/odd signs").read(IMAGE), tensors())
    assert len(list(cache.folder.iterdir())) == 1
    assert list(cache._aside.iterdir()) == []


def test_whatever_decides_the_tensors_is_part_of_their_place(monkeypatch):
    caches = [
        ImageCache("features", "model-1", 16),
        ImageCache("features", "model-1", 17),
        ImageCache("features", "model-2", 16),
        ImageCache("segmenter", "model-1"),
        ImageCache("features", "model:1", 16),
        ImageCache("features", "model_1", 16),
    ]
    paths = {cache.path(IMAGE) for cache in caches}
    monkeypatch.setattr(image_cache, "FORMAT", image_cache.FORMAT + 1)
    paths.add(ImageCache("features", "model-1", 16).path(IMAGE))
    assert len(paths) == 7


def truncate(path):
    path.write_bytes(path.read_bytes()[:-50])


def empty(path):
    path.write_bytes(b"")


def blank(path):
    path.write_bytes(bytes(path.stat().st_size))


def something_else(path):
    path.write_bytes(b"PK\x03\x04 something else entirely")


def a_folder(path):
    path.unlink()
    path.mkdir()


def of_another_image(path):
    cache = ImageCache("segmenter", "model")
    cache.write(OTHER, tensors())
    shutil.copy(cache.path(OTHER), path)


def of_another_model(path):
    other = ImageCache("segmenter", "other")
    other.write(IMAGE, tensors())
    shutil.copy(other.path(IMAGE), path)


@pytest.mark.parametrize(
    "spoil", [truncate, empty, blank, something_else, a_folder, of_another_image, of_another_model]
)
@pytest.mark.parametrize("how", ["read", "holds"])
def test_a_damaged_file_is_a_warning_and_as_good_as_none(spoil, how):
    cache = ImageCache("segmenter", "model")
    cache.write(IMAGE, tensors())
    spoil(cache.path(IMAGE))
    with pytest.warns(UserWarning, match="cannot be used .* it is computed again"):
        assert not getattr(cache, how)(IMAGE)
    if spoil is not a_folder:
        cache.write(IMAGE, tensors())
        assert_equal(cache.read(IMAGE), tensors())


def test_values_that_changed_on_the_disk_are_noticed():
    cache = ImageCache("segmenter", "model")
    cache.write(IMAGE, tensors())
    data = bytearray(cache.path(IMAGE).read_bytes())
    data[-1] ^= 1
    cache.path(IMAGE).write_bytes(data)
    with pytest.warns(UserWarning, match="its values have changed"):
        assert cache.read(IMAGE) is None


def test_a_disk_that_refuses_leaves_nothing_behind_and_the_old_file_in_place():
    cache = ImageCache("segmenter", "model")
    cache.write(IMAGE, tensors())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (3000, before[1])
    )  # the system ends each write after 3000 bytes
    try:
        with pytest.raises(OSError, match="File too large"):
            cache.write(IMAGE, tensors())
        with pytest.raises(OSError, match="File too large"):
            cache.write(OTHER, tensors())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(cache._aside.iterdir()) == []
    assert_equal(cache.read(IMAGE), tensors())
    assert cache.read(OTHER) is None


def test_what_killed_processes_left_is_swept_away_in_time():
    cache = ImageCache("segmenter", "model")
    cache.write(IMAGE, tensors())
    old, new = cache._aside / "old", cache._aside / "new"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    ImageCache("features", "model", 4)
    assert list(cache._aside.iterdir()) == [new]


def _write_often(folder, number, failures):
    os.environ["PPD_CACHE"] = folder
    warnings.simplefilter("error")
    cache = ImageCache("segmenter", "model")
    try:
        for _ in range(40):
            cache.write(IMAGE, tensors())
            assert_equal(cache.read(IMAGE), tensors())
    except BaseException as error:
        failures.put(f"{number}: {error!r}")


def test_processes_may_write_the_same_image_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    failures = context.Queue()
    workers = [context.Process(target=_write_often, args=(str(tmp_path), n, failures)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    assert failures.empty(), failures.get()
    assert len(list(ImageCache("segmenter", "model").folder.iterdir())) == 1
