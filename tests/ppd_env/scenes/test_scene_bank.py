"""SceneBank: what its tensors mean, and its disk cache."""

import json
import multiprocessing
import shutil
import warnings

import numpy as np
import pytest
import torch

from ppd_env.errors import ConfigError, SceneError
from ppd_env.features.fake import FakeFeatures
from ppd_env.paths import cache_dir
from ppd_env.scenes import bank as bank_module
from ppd_env.scenes import cache, sources
from ppd_env.scenes.bank import build_bank, open_bank
from ppd_env.scenes.patches import nodes_inside, patch_centres, peak_node
from ppd_env.scenes.scene import RawScene
from ppd_env.segmenters.fake import FakeSegmenter
from ppd_env.segmenters.letterbox import low_res_mask

GRID = 4


class ListSource:
    """Scenes of two shapes; index 1 cannot be used; counts how often a scene is read."""

    signature = "list-1"

    def __init__(self, uri):
        self.uri = uri.text
        self.reads = 0

    def __len__(self):
        return 3

    def __getitem__(self, index):
        self.reads += 1
        if index == 1:
            raise SceneError("b.png", "is torn")
        height, width = (40, 60) if index == 0 else (30, 20)
        rng = np.random.default_rng(index)
        mask = np.zeros((height, width), bool)
        mask[: int(height * 0.6), : int(width * 0.6)] = True
        image = rng.integers(0, 255, (height, width, 3), np.uint8)
        return RawScene(f"scene{index}", image, mask, "same")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sources.OPENERS, "list", ListSource)
    monkeypatch.setattr(sources, "_opened", {})
    monkeypatch.setattr(bank_module, "_opened", {})


def build(uri="list://", grid=GRID, quiet=True, **options):
    with warnings.catch_warnings():
        if quiet:
            warnings.filterwarnings("ignore", message=".*left out")
        return build_bank(uri, FakeSegmenter(), FakeFeatures(), grid, **options)


def folders():
    return sorted((cache_dir() / "banks").iterdir())


def assert_same(one, other):
    assert (one.names, one.groups, one.indices) == (other.names, other.groups, other.indices)
    assert [str(p) for p in one.problems] == [str(p) for p in other.problems]
    for name in ("features", "positions", "points", "truth", "peak", "target", "valid"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert torch.equal(one.embedding.sizes, other.embedding.sizes)
    for name, tensor in one.embedding.tensors.items():
        assert torch.equal(tensor, other.embedding.tensors[name])


def test_tensors_mean_what_they_say():
    bank = build()
    assert len(bank) == 2
    assert bank.names == ["scene0", "scene2"]
    assert bank.indices == [0, 2]
    assert bank.features.shape == (2, GRID * GRID, 3)
    assert bank.features.dtype == torch.float32
    for row in range(2):
        scene = bank.raw(row)
        assert scene.name == bank.names[row]
        height, width = scene.mask.shape
        for node in range(GRID * GRID):
            x, y = (node % GRID + 0.5) * width / GRID, (node // GRID + 0.5) * height / GRID
            assert bank.points[row, node].tolist() == pytest.approx([x, y])
            assert bool(bank.truth[row, node]) == bool(scene.mask[int(y), int(x)])
        torch.testing.assert_close(bank.points[row] / torch.tensor([width, height]), bank.positions)
        expected = FakeFeatures().extract(scene.image, GRID)
        torch.testing.assert_close(bank.features[row], expected)
        np.testing.assert_array_equal(bank.target[row], low_res_mask(scene.mask, 32))
        assert bank.embedding.sizes[row].tolist() == [height, width]
        assert (bank.target[row] & ~bank.valid[row]).sum() == 0
    assert bank.valid[0].sum() == 21 * 32
    assert bank.truth.dtype == bank.target.dtype == bank.valid.dtype == torch.bool


def test_learners_can_differentiate_through_features():
    weight = torch.ones(3, requires_grad=True)
    (build(cache=False).features @ weight).sum().backward()
    assert weight.grad is not None


def test_patch_centres_are_row_major_x_then_y():
    assert patch_centres(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_peak_is_the_deepest_patch_centre_inside():
    mask = np.zeros((80, 80), bool)
    mask[30:80, 0:80] = True
    assert peak_node(mask, 4) in (9, 10)  # the image's edge counts as outside, or it would be in the last row
    mask[:] = True
    assert peak_node(mask, 3) == 4


def test_peak_of_a_mask_between_all_centres_is_its_patch():
    mask = np.zeros((80, 80), bool)
    mask[62:66, 1:4] = True
    assert not nodes_inside(mask, 4).any()
    assert peak_node(mask, 4) == 12


def test_left_out_scenes_are_named_in_one_warning():
    with pytest.warns(UserWarning, match="1 of 3 scenes") as caught:
        bank = build(quiet=False)
    assert len(caught) == 1
    assert "b.png: is torn" in str(caught[0].message)
    assert [problem.file for problem in bank.problems] == ["b.png"]


def test_cache_hit_reads_no_scene_and_gives_the_same_bank():
    first = build()
    assert first.source.reads == 3
    second = build()
    assert second.source.reads == 3
    assert_same(first, second)
    assert len(folders()) == 1


def test_cache_can_be_left_out():
    build(cache=False)
    assert not cache_dir().exists()


@pytest.mark.parametrize("change", ["grid", "source", "low_res", "uri", "format"])
def test_whatever_decides_the_scenes_is_part_of_their_key(change, monkeypatch):
    build()
    options = {}
    if change == "grid":
        options["grid"] = 5
    elif change == "uri":
        monkeypatch.setitem(sources.OPENERS, "list2", ListSource)
        options["uri"] = "list2://"
    elif change == "format":
        monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    else:
        owner, name, value = {
            "source": (ListSource, "signature", "another"),
            "low_res": (FakeSegmenter, "low_res", 16),
        }[change]
        monkeypatch.setattr(owner, name, value)
    build(**options)
    assert len(folders()) == 2


def spoil_tensors(folder):
    path = folder / cache.TENSORS
    path.write_bytes(path.read_bytes()[:-100])


def spoil_manifest(folder):
    (folder / cache.MANIFEST).write_text('{"key": ')


def drop_tensors(folder):
    (folder / cache.TENSORS).unlink()


def foreign_manifest(folder):
    manifest = json.loads((folder / cache.MANIFEST).read_text())
    manifest["key"]["grid"] = 99
    (folder / cache.MANIFEST).write_text(json.dumps(manifest))


def foreign_tensors(folder):
    (folder / cache.TENSORS).write_bytes(b"PK\x03\x04 something else entirely")


def short_notes(folder):
    manifest = json.loads((folder / cache.MANIFEST).read_text())
    manifest["notes"]["names"].pop()
    (folder / cache.MANIFEST).write_text(json.dumps(manifest))


def no_notes(folder):
    manifest = json.loads((folder / cache.MANIFEST).read_text())
    manifest["notes"] = {}
    (folder / cache.MANIFEST).write_text(json.dumps(manifest))


def a_file_in_its_place(folder):
    shutil.rmtree(folder)
    folder.write_text("not a folder")


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_tensors,
        spoil_manifest,
        drop_tensors,
        foreign_manifest,
        foreign_tensors,
        short_notes,
        no_notes,
        a_file_in_its_place,
    ],
)
def test_a_spoilt_cache_is_built_again_with_a_warning(spoil):
    first = build()
    spoil(folders()[0])
    with pytest.warns(UserWarning, match="cannot be used .* it is built again"):
        second = build()
    assert_same(first, second)
    assert second.source.reads == 6
    third = build()
    assert third.source.reads == 6
    assert len(folders()) == 1


def test_a_full_disk_is_a_warning(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(cache, "save_file", refuse)
        with pytest.warns(UserWarning, match=r"No space left on device.*the run goes on without") as caught:
            bank = build()
    assert len(caught) == 1
    assert folders() == []
    assert_same(bank, build())


def test_an_unusable_cache_folder_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PPD_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="could not be kept") as caught:
        assert len(build()) == 2
    assert len(caught) == 1


def _store_often(folder, number, failures):
    import os

    os.environ["PPD_CACHE"] = folder
    warnings.simplefilter("error")
    parts = {"who": "both"}
    entry = cache.CacheEntry({"a": torch.arange(5000)}, {"names": ["x"]})
    try:
        for _ in range(30):
            assert cache.write_entry(parts, entry)
            found = cache.read_entry(parts)
            # While the other process swaps folders there may be none, but never a broken one.
            assert found is None or torch.equal(found.tensors["a"], entry.tensors["a"])
    except BaseException as error:
        failures.put(f"{number}: {error!r}")


def test_two_processes_may_write_the_same_bank_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    failures = context.Queue()
    folder = str(tmp_path / "cache")
    workers = [context.Process(target=_store_often, args=(folder, n, failures)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    assert failures.empty(), failures.get()
    assert cache.read_entry({"who": "both"}) is not None
    assert len(folders()) == 1


def test_open_bank_builds_once_per_process_and_names_segmenter_features():
    uri = "shapes://train?count=2&seed=1"
    first = open_bank(uri, "fake", "fake", GRID)
    assert open_bank(uri, "fake", "fake", GRID) is first
    assert open_bank(uri, "fake", "fake", GRID + 1) is not first
    own = open_bank(uri, "fake", "segmenter", GRID)
    assert own.features.shape[:2] == (2, GRID * GRID)


def test_errors_name_the_remedy():
    with pytest.raises(ConfigError, match="grid must be at least 1"):
        build(grid=0)
    with pytest.raises(ConfigError, match=r"Unknown scenes 'dog://x'; known schemes: coco://, folder://"):
        build("dog://x")


def test_sources_are_opened_once():
    assert sources.open_source("list://") is sources.open_source("list://")


def test_cache_dir_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PPD_CACHE", "~/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "elsewhere"
    monkeypatch.delenv("PPD_CACHE")
    assert cache_dir() == tmp_path / ".cache" / "ppd"
