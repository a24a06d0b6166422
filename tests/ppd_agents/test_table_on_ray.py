"""The paper's tables on a Ray cluster, one that is started on this machine, are those of one process."""

import os
from pathlib import Path

import pytest
from table_sets import GRID, agent, write_sets

from ppd_agents.evaluation.paper.config import TableConfig
from ppd_agents.evaluation.paper.playing import Cluster
from ppd_agents.evaluation.paper.result import measure_table
from ppd_agents.evaluation.paper.sets import find_sets

ray = pytest.importorskip("ray")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory):
    """Two processors on this machine; the workers import this package from here."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    there = {"PYTHONPATH": paths, "PPD_CACHE": str(tmp_path_factory.mktemp("workers"))}
    ray.init(num_cpus=2, log_to_driver=False, runtime_env={"env_vars": there})
    yield
    ray.shutdown()


@pytest.mark.parametrize("table", [1, 2])
def test_a_table_is_the_same_with_and_without_ray(table, tmp_path):
    uris = find_sets((), write_sets(tmp_path / "data"))
    methods = ("persam", "matcher", "ours")
    config = TableConfig(
        table, "fake", "fake", GRID, references=2, budgets=(3,), methods=methods, resamples=20
    )

    def measured(name, cluster):
        agents = agent("attacker", 0), agent("defender", 1)
        return measure_table(config, uris, *agents, tmp_path / name, str, cluster=cluster, progress=False)

    spread, alone = measured("spread", Cluster(2)), measured("alone", None)
    assert {**spread, "seconds": 0} == {**alone, "seconds": 0}
    kept = [sorted(path.name for path in (tmp_path / name).glob("*/*.npz")) for name in ("spread", "alone")]
    assert kept[0] == kept[1]
    assert kept[0]
