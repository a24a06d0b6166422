"""Work spread over a Ray cluster: one that is started on this machine."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from squarer import Squarer

from ppd_agents.encoding import EncodeConfig, encode_scenes
from ppd_agents.ray_workers import JOBS_UNDER_WAY, RayWorkers
from ppd_env.errors import ConfigError, PPDError, SceneError
from ppd_env.features.fake import FakeFeatures
from ppd_env.paths import cache_dir
from ppd_env.scenes.bank import build_bank
from ppd_env.segmenters.fake import FakeSegmenter

ray = pytest.importorskip("ray")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two processors on this machine; the workers import what the tests do."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    ray.init(num_cpus=2, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path / "cache"))


def test_every_job_is_done_once_by_one_of_several_processes():
    with RayWorkers(Squarer, "cpu", 2) as workers:
        results = list(workers.map("square", ((number,) for number in range(13))))
        assert sum(workers.ask_all("count")) == 13
    assert sorted(value for value, _ in results) == [number**2 for number in range(13)]
    processes = {process for _, process in results}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_jobs_are_taken_as_workers_become_free():
    taken = []

    def jobs():
        for number in range(12):
            taken.append(number)
            yield (number,)

    with RayWorkers(Squarer, "cpu", 1) as workers:
        for done, _ in enumerate(workers.map("square", jobs()), start=1):
            assert len(taken) <= done + JOBS_UNDER_WAY
    assert len(taken) == 12


def test_there_may_be_fewer_jobs_than_workers_or_none():
    with RayWorkers(Squarer, "cpu", 2) as workers:
        assert [value for value, _ in workers.map("square", [(3,)])] == [9]
        assert list(workers.map("square", [])) == []


def test_what_a_worker_raises_is_raised_here_as_it_was():
    with RayWorkers(Squarer, "cpu", 1) as workers, pytest.raises(SceneError) as error:
        list(workers.map("square", [(13,)]))
    assert str(error.value) == "thirteen.png: is unlucky"
    with (
        RayWorkers(partial(Squarer, broken=True), "cpu", 1) as workers,
        pytest.raises(ConfigError) as refused,
    ):
        workers.ask_all("count")
    assert str(refused.value) == "no weights here"


def test_a_worker_that_is_lost_again_and_again_is_an_error():
    with RayWorkers(Squarer, "cpu", 1) as workers, pytest.raises(PPDError, match="A Ray worker was lost"):
        workers.ask_all("die")


def test_a_cluster_that_cannot_hold_the_workers_is_an_error_and_no_endless_wait():
    with pytest.raises(ConfigError, match="no GPU: add a machine with one, or use --device cpu"):
        RayWorkers(Squarer, "cuda")
    with pytest.raises(ConfigError, match="room for 2 workers on cpu, not for 3"):
        RayWorkers(Squarer, "cpu", 3)


def test_workers_encode_what_one_process_would(monkeypatch, tmp_path):
    config = EncodeConfig("photos://test", "fake", "fake", 5, ray=True, workers=2)
    report = encode_scenes(config)
    assert report.encoded > 3
    assert report.found == report.refused == 0
    spread = build_bank("photos://test", FakeSegmenter(), FakeFeatures(), 5)
    monkeypatch.setenv("PPD_CACHE", str(tmp_path / "other"))
    alone = build_bank("photos://test", FakeSegmenter(), FakeFeatures(), 5)
    assert torch.equal(spread.features, alone.features)
    assert torch.equal(spread.embedding.tensors["image"], alone.embedding.tensors["image"])
    assert report.written == sum(path.stat().st_size for path in report.folder.rglob("*.safetensors"))


def test_models_that_need_their_own_copy_of_an_image_get_one():
    from ppd_agents.encoding import Models

    image = np.zeros((4, 4, 3), np.uint8)
    image.setflags(write=False)
    models, seen = Models(EncodeConfig("any://", "fake", "fake", 2)), []
    models._encoder.compute = lambda image, missing: seen.append(image.flags.writeable) or {}
    models.compute("digest", image, ("segmenter",))
    assert seen == [True]


def test_a_wrong_model_is_one_sentence_on_the_cluster_too():
    with pytest.raises(ConfigError, match="/no/folder is not a folder"):
        encode_scenes(EncodeConfig("photos://test", "fake", "dinov2:/no/folder", 5, ray=True, workers=1))
    assert not cache_dir().exists()


@pytest.mark.slow
def test_the_command_starts_a_cluster_of_its_own(tmp_path):
    arguments = (
        "encode",
        "photos://test",
        "--segmenter",
        "fake",
        "--features",
        "fake",
        "--grid",
        "4",
        "--ray",
    )
    found = subprocess.run(
        [sys.executable, "-m", "ppd_agents", *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PPD_CACHE": str(tmp_path), "RAY_ADDRESS": "local"},
    )
    assert "encoded" in found.stdout
    assert list(tmp_path.rglob("*.safetensors"))
