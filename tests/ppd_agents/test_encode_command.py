"""`ppd encode`: what it does, says and writes, how it resumes, and what it needs."""

import json
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from ppd_agents import cli, encoding
from ppd_agents.encoding import EncodeConfig, encode_scenes
from ppd_env.errors import ConfigError, SceneError
from ppd_env.paths import cache_dir
from ppd_env.scenes import sources
from ppd_env.scenes.bank import build_bank
from ppd_env.scenes.scene import RawScene
from ppd_env.segmenters import registry
from ppd_env.segmenters.fake import FakeSegmenter

ROOT = Path(__file__).parents[2]


class PairsSource:
    """``pairs://COUNT``: COUNT images with two masks each, and a broken file."""

    signature = "pairs-1"

    def __init__(self, uri):
        self.uri = uri.text
        self.count = int(uri.path)

    def __len__(self):
        return 2 * self.count + 1

    def __getitem__(self, index):
        if index == 0:
            raise SceneError("torn.png", "is torn")
        number = (index - 1) // 2
        image = np.random.default_rng(number).integers(0, 255, (12, 16, 3), np.uint8)
        mask = np.zeros((12, 16), bool)
        mask[:6] = True
        return RawScene(f"{index}", image, mask, f"{number}")


class Brittle(FakeSegmenter):
    """Counts; may be interrupted before an image."""

    embedded, stop_at = 0, None

    def embed(self, image):
        if self.embedded == self.stop_at:
            raise KeyboardInterrupt
        self.embedded += 1
        return super().embed(image)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sources.OPENERS, "pairs", PairsSource)
    monkeypatch.setattr(sources, "_opened", {})


@pytest.fixture
def brittle(monkeypatch):
    monkeypatch.setitem(registry.LOADERS, "brittle", lambda uri, device: Brittle(device))
    monkeypatch.setattr(registry._registry, "_loaded", {})
    return registry.load_segmenter("brittle")


def config(scenes="pairs://6", **changes):
    return EncodeConfig(scenes, **{"segmenter": "fake", "features": "fake", "grid": 4, **changes})


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_it_encodes_each_image_once_and_names_what_it_left_out(brittle):
    first = encode_scenes(config(segmenter="brittle"))
    assert (first.encoded, first.found, first.refused, first.scenes) == (6, 0, 0, 13)
    assert first.left_out == ["torn.png: is torn"]
    assert first.written == sum(path.stat().st_size for path in cache_dir().rglob("*.safetensors"))
    second = encode_scenes(config("pairs://8", segmenter="brittle"))
    assert (second.encoded, second.found) == (2, 6)
    assert brittle.embedded == 8


def test_a_bank_takes_what_was_encoded(brittle):
    from ppd_env.features.fake import FakeFeatures

    encode_scenes(config(segmenter="brittle"))
    with pytest.warns(UserWarning, match="left out"):
        bank = build_bank("pairs://6", brittle, FakeFeatures(), 4)
    assert brittle.embedded == 6
    assert len(bank) == 12


def test_a_truncated_file_is_encoded_again():
    encode_scenes(config())
    path = sorted(cache_dir().rglob("*.safetensors"))[3]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(UserWarning, match="cannot be used"):
        again = encode_scenes(config())
    assert (again.encoded, again.found) == (1, 5)


def test_it_goes_on_where_it_was_interrupted(capsys, brittle):
    arguments = ("encode", "pairs://6", "--segmenter", "brittle", "--features", "fake", "--grid", "4")
    brittle.stop_at = 4
    code, _, err = run(capsys, *arguments)
    assert code == 130
    assert "the same command goes on where it stopped" in err
    brittle.stop_at = None
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert brittle.embedded == 6
    assert "encoded   2 images" in out
    assert "found     4 images" in out


def test_the_command_prints_and_writes_what_it_did(capsys, tmp_path):
    target = tmp_path / "done.json"
    code, out, _ = run(
        capsys,
        *(
            "encode",
            "pairs://6",
            "--segmenter",
            "fake",
            "--features",
            "segmenter",
            "--grid",
            "5",
            "--json",
            target,
        ),
    )
    assert code == 0
    assert "pairs://6: 13 scenes, grid 5 x 5" in out
    assert "encoded   6 images" in out
    assert str(cache_dir() / "embeddings") in out
    assert "left out  1 scenes:\n    torn.png: is torn" in out
    found = json.loads(target.read_text())
    assert (found["encoded"], found["found"], found["not_kept"], found["left_out"]) == (
        6,
        0,
        0,
        ["torn.png: is torn"],
    )
    assert found["config"]["features"] == "segmenter"
    assert found["bytes"] > 0


def test_a_full_disk_ends_the_waste_but_loses_nothing(capsys, brittle):
    arguments = ("encode", "pairs://20", "--segmenter", "brittle", "--features", "fake", "--grid", "4")
    encode_scenes(config("pairs://3", segmenter="brittle"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        with pytest.warns(UserWarning, match="could not be kept") as caught:
            code, out, _ = run(capsys, *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 1
    assert len(caught) == 1
    assert brittle.embedded == 3 + encoding.GIVE_UP_AFTER
    assert f"not kept  {encoding.GIVE_UP_AFTER} images" in out
    assert "stopped early" in out
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert "found     3 images" in out
    assert "encoded   17 images" in out


def test_a_disk_that_refuses_now_and_then_does_not_stop_it(monkeypatch):
    from ppd_env.scenes.image_cache import ImageCache

    write, calls = ImageCache.write, []

    def sometimes(self, image, tensors):
        calls.append(image)
        if len(calls) % 6 == 1:
            raise OSError(28, "No space left on device")
        return write(self, image, tensors)

    monkeypatch.setattr(ImageCache, "write", sometimes)
    with pytest.warns(UserWarning, match="No space left on device") as caught:
        report = encode_scenes(config("pairs://20"))
    assert len(caught) == 1
    assert not report.gave_up
    assert (report.encoded, report.refused) == (13, 7)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere://x",), "Unknown scenes 'nowhere://x'"),
        (
            ("pairs://6", "--segmenter", "fake", "--features", "fake", "--grid", "0"),
            "grid must be at least 1",
        ),
        (("pairs://6", "--features", "dinov2:/no/folder"), "is not a folder"),
        (("pairs://6", "--device", "abacus"), "'abacus' cannot be used"),
        (("pairs://0", "--segmenter", "fake", "--features", "fake"), "no scene can be used"),
    ],
)
def test_errors_are_one_sentence(capsys, monkeypatch, arguments, says):
    code, _, err = run(capsys, "encode", *arguments)
    assert code == 2
    assert says in err.splitlines()[-1]
    assert "Traceback" not in err


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'point-prompt-defender\[ray\]'"):
        encode_scenes(config(ray=True))
    with pytest.raises(ConfigError, match="With Ray the device is 'cpu' or 'cuda'"):
        encode_scenes(config(ray=True, device="cuda:1"))
    with pytest.raises(ConfigError, match="At least one Ray worker"):
        encode_scenes(config(ray=True, workers=0))


MEMORY = """
    import json, sys
    import numpy as np
    from ppd_agents.encoding import EncodeConfig, encode_scenes
    from ppd_env.scenes.scene import RawScene
    from ppd_env.scenes.sources import OPENERS

    def rss():
        pages = int(open("/proc/self/statm").read().split()[1])
        return pages * 4096

    class Many:
        signature = "many"
        marks = []

        def __init__(self, uri):
            self.uri = uri.text

        def __len__(self):
            return int(sys.argv[1])

        def __getitem__(self, index):
            if index % (len(self) // 6) == 0:
                self.marks.append(rss())
            image = np.random.default_rng(index).integers(0, 255, (64, 64, 3), np.uint8)
            return RawScene(str(index), image, image[..., 0] > 9, str(index))

    OPENERS["many"] = Many
    report = encode_scenes(EncodeConfig("many://", "fake", "fake", 4))
    assert report.encoded == int(sys.argv[1]), report
    print(json.dumps(Many.marks))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
@pytest.mark.parametrize("images", [2400, pytest.param(10_200, marks=pytest.mark.slow)])
def test_memory_stays_flat(tmp_path, images):
    """2000 images of 12 KB with embeddings of 12 KB: keeping either would be 24 MB."""
    script = tmp_path / "many.py"
    script.write_text(textwrap.dedent(MEMORY))
    found = subprocess.run(
        [sys.executable, str(script), str(images)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    marks = json.loads(found.stdout.splitlines()[-1])
    assert len(marks) == 6
    assert max(marks[1:]) - marks[1] < 8e6
