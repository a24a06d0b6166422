"""`ppd evaluate --table`: what is measured, how it resumes, what it writes, and what it refuses."""

import csv
import json
import pickle
import re

import numpy as np
import pytest
from table_sets import GRID, MODELS, agent, write_agents, write_set, write_sets

from ppd_agents import cli
from ppd_agents.dqn.agent import save_agent
from ppd_agents.evaluation.paper import bench as bench_module
from ppd_agents.evaluation.paper import playing as playing_module
from ppd_agents.evaluation.paper import sets as sets_module
from ppd_agents.evaluation.paper.bench import owned
from ppd_agents.evaluation.paper.config import TableConfig
from ppd_agents.evaluation.paper.playing import Cluster
from ppd_agents.evaluation.paper.published import published
from ppd_agents.evaluation.paper.result import measure_table
from ppd_agents.evaluation.paper.scores import MEASURES, score
from ppd_agents.evaluation.paper.sets import TableSet, find_sets
from ppd_env.errors import ConfigError
from ppd_env.metrics import dice, hd95
from ppd_env.scenes.scene import HeldScenes, RawScene

QUICK = ("persam", "persam_f?steps=2", "matcher", "gbmseg", "ppo", "ours")
ROWS = {"ideal", "attack.learned", "defence.learned", "matching", "matching.learned"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_sets(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def agents(tmp_path_factory):
    return write_agents(tmp_path_factory.mktemp("agents"))


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["evaluate", *map(str, arguments)])
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def measured(table, uris, folder, cluster=None, **changes):
    settings = {"references": 2, "budgets": (3,), "methods": QUICK, "resamples": 40, **changes}
    config = TableConfig(table, "fake", "fake", GRID, **settings)
    return measure_table(
        config,
        uris,
        agent("attacker", 0),
        agent("defender", 1),
        folder,
        str,
        cluster=cluster,
        progress=False,
    )


@pytest.fixture(scope="module")
def both(tmp_path_factory, data):
    """Both tables on both sets."""
    folder = tmp_path_factory.mktemp("both")
    uris = find_sets((), data)
    return {table: measured(table, uris, folder) for table in (1, 2)}


def test_table_1_measures_every_row_on_every_set_with_several_references(both):
    result = both[1]
    assert list(result["results"]) == ["deep/pets", "lesions"]
    for name, budgets in result["results"].items():
        assert list(budgets) == ["3"]
        table = budgets["3"]
        assert set(table) == ROWS | {"differences", "recovery"}
        place = result["config"]["scene_sets"][name]
        assert {table[row]["n"] for row in ROWS} == {place["n"]} == {len(place["targets"])}
        assert [len(table[row]["per_seed"]) for row in ("ideal", "matching")] == [1, 2]
        assert table["ideal"]["reference_sd"] is None
        assert table["matching"]["reference_sd"]["mdsc"] > 0
        for row in ROWS:
            one = table[row]
            for key in ("mdsc", "miou", "hd95"):
                low, high = one[f"{key}_ci"]
                assert low <= one[key] <= high
            assert one["miou"] <= one["mdsc"]
            assert one["prompts"] >= 1
            assert np.mean([entry["hd95"] for entry in one["per_seed"]]) == pytest.approx(
                one["hd95"], abs=1e-3
            )
    pets = result["config"]["scene_sets"]["deep/pets"]
    assert {kind: len(names) for kind, names in pets["references"].items()} == {"cat": 2, "dog": 2}
    assert pets["n"] == 2
    assert result["config"]["scene_sets"]["lesions"]["n"] == 4


def test_differences_are_those_of_the_rows_and_paired(both):
    for table in both.values():
        for budgets in table["results"].values():
            for rows in budgets.values():
                assert rows["differences"]
                for pair, found in rows["differences"].items():
                    after, before = pair.split(" - ")
                    for key in ("mdsc", "miou", "hd95"):
                        gap = rows[after][key] - rows[before][key]
                        assert found[key]["value"] == pytest.approx(gap, abs=2e-4)
                        assert found[key]["ci"][0] <= found[key]["value"] + 1e-9 <= found[key]["ci"][1] + 2e-9
    one = both[1]["results"]["lesions"]["3"]["differences"]
    assert list(one) == [
        "attack.learned - ideal",
        "defence.learned - attack.learned",
        "matching.learned - matching",
    ]


def test_table_2_measures_every_method_and_ours_is_table_1s_defended_matching(both):
    for name, budgets in both[2]["results"].items():
        rows = budgets["0"]
        assert set(rows) == {*QUICK, "differences"}
        assert list(rows["differences"]) == [f"ours - {row}" for row in QUICK if row != "ours"]
        assert rows["ours"] == both[1]["results"][name]["3"]["matching.learned"]
        assert rows["persam"]["prompts"] == 2
        assert rows["matcher"]["prompts"] > 2


def test_ours_side_by_side_is_ours_one_by_one(data, agents, tmp_path):
    methods = ("ours", f"ours?agent={agents}")
    uris = {"lesions": f"folder://{data}/lesions"}
    rows = measured(2, uris, tmp_path, methods=methods, references=1)["results"]["lesions"]["0"]
    one, other = (rows[method] for method in methods)
    for key in ("mdsc", "miou", "hd95", "prompts"):
        assert one[key] == pytest.approx(other[key], abs=1e-3)
    assert one["prompts"] < 36


def test_published_numbers_stand_apart_and_add_up(both):
    one, two = both[1]["published"], both[2]["published"]
    assert [source["where"] for source in one + two] == ["Table I", "Table II"]
    rows = one[0]["rows"]
    changes = {
        "attack.learned": ("ideal", -44.3, -30.9, -23.3),
        "matching.learned": ("matching", 27.8, 9.9, 23.4),
    }
    changes["defence.learned"] = ("attack.learned", 39.3, 25.1, 16.7)
    for row, (start, *gaps) in changes.items():
        for place, gap in zip(("PASCAL VOC", "ISIC", "Kvasir"), gaps, strict=True):
            assert rows[row][place]["mdsc"] - rows[start][place]["mdsc"] == pytest.approx(gap, abs=1e-6)
    assert two[0]["rows"]["ours"] == rows["matching.learned"]
    assert "vrp_sam" in two[0]["rows"]
    for source in published(1) + published(2):
        assert source["models"]
        assert source["protocol"]
    for table in both.values():
        for budgets in table["results"].values():
            assert all("vrp_sam" not in rows for rows in budgets.values())


def test_a_method_whose_agent_was_trained_again_is_played_again(data, tmp_path):
    uris = dict(list(find_sets((), data).items())[:1])
    place, kept = tmp_path / "defender", tmp_path / "kept"
    method = f"ours?agent={place}"

    def prompts(seed):
        save_agent(agent("defender", seed), place)
        fresh = measured(2, uris, tmp_path / f"fresh-{seed}", methods=(method,), references=1)
        resumed = measured(2, uris, kept, methods=(method,), references=1)
        assert resumed["results"] == fresh["results"]
        return resumed["config"]["models"][method]

    assert prompts(1) != prompts(2)


def test_an_interrupted_table_goes_on_and_ends_the_same_in_whatever_parts(both, data, tmp_path, monkeypatch):
    monkeypatch.setattr(sets_module, "PART", 3)
    uris, play, played = find_sets((), data), bench_module.Bench.play, []

    def brittle(self, job):
        if len(played) == 3:
            raise KeyboardInterrupt
        played.append(job.name)
        return play(self, job)

    monkeypatch.setattr(bench_module.Bench, "play", brittle)
    with pytest.raises(KeyboardInterrupt):
        measured(1, uris, tmp_path)
    assert len(list(tmp_path.glob("*/*.npz"))) == 3
    first = list(played)
    monkeypatch.setattr(
        bench_module.Bench, "play", lambda self, job: (played.append(job.name), play(self, job))[1]
    )
    again = measured(1, uris, tmp_path)
    assert not set(first) & set(played[3:])
    assert {**again, "seconds": 0} == {**both[1], "seconds": 0}
    count = len(played)
    measured(1, uris, tmp_path, resamples=30)
    assert len(played) == count
    measured(1, uris, tmp_path, seed=1)
    assert len(played) > count


class Elsewhere:
    """Stands in for a Ray cluster: everything is pickled, arrays come read-only, results in another order."""

    def __init__(self, make, device, count):
        self.asked = device, count
        self.bench = pickle.loads(pickle.dumps(make))()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def agree(self, method):
        return getattr(self.bench, method)()

    def map(self, method, jobs):
        sent = [pickle.loads(pickle.dumps(job)) for job in jobs]
        for (job,) in reversed(sent):
            for scene in (*job.targets.scenes, *job.references.scenes):
                scene.image.setflags(write=False)
                scene.mask.setflags(write=False)
            yield pickle.loads(pickle.dumps(getattr(self.bench, method)(job)))


@pytest.mark.parametrize("table", [1, 2])
def test_a_table_played_elsewhere_and_in_another_order_is_the_same(table, both, data, tmp_path, monkeypatch):
    monkeypatch.setattr(playing_module, "RayWorkers", Elsewhere)
    found = measured(table, find_sets((), data), tmp_path, cluster=Cluster(2))
    assert {**found, "seconds": 0} == {**both[table], "seconds": 0}


def test_what_cannot_be_read_is_left_out_with_its_reason(tmp_path):
    write_set(tmp_path / "data", [f"l{number}" for number in range(6)])
    place = TableSet("data", f"folder://{tmp_path}/data", 2, 0)
    victim = place.targets[1]
    (tmp_path / "data" / "images" / f"{victim.name}.png").write_bytes(b"no image")
    result = measured(1, {"data": place.uri}, tmp_path / "out")
    notes = result["config"]["scene_sets"]["data"]
    assert notes["n"] == 3
    assert len(notes["left_out"]) == 1
    assert f"{victim.name}.png" in notes["left_out"][0]
    again = measured(1, {"data": place.uri}, tmp_path / "out")
    assert {**again, "seconds": 0} == {**result, "seconds": 0}


def test_void_pixels_count_in_no_score():
    rng = np.random.default_rng(0)
    truth, void = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    truth[4:12, 4:12], void[12:, :] = True, True
    scene = RawScene("x", np.zeros((20, 20, 3), np.uint8), truth, "x", void)
    mask = truth.copy()
    mask[12:] = rng.random((8, 20)) < 0.5
    found = dict(zip(MEASURES, score(mask, scene, 7), strict=True))
    assert found == {"dice": 100, "iou": 100, "hd95": 0, "both": 64, "areas": 128, "prompts": 7}
    bare = RawScene("x", scene.image, truth, "x")
    found = dict(zip(MEASURES, score(mask, bare, 7), strict=True))
    assert found["dice"] == 100 * dice(mask, truth) < 100
    assert found["hd95"] == hd95(mask, truth) > 0


def test_scenes_that_came_read_only_are_copied_and_others_are_not():
    image, mask = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), bool)
    mask.setflags(write=False)
    found = owned(HeldScenes("x://", [RawScene("x", image, mask, "x")], "s"))
    assert found.signature == "s"
    assert found[0].image is image
    assert found[0].mask.flags.writeable
    assert (found[0].mask == mask).all()


def test_every_set_below_a_folder_is_found_under_a_name_that_tells_no_machine(data, tmp_path):
    assert find_sets((), data) == {
        "deep/pets": f"folder://{data}/deep/pets",
        "lesions": f"folder://{data}/lesions",
    }
    assert find_sets(("shapes://test?count=3",), data / "lesions") == {
        "shapes://test?count=3": "shapes://test?count=3",
        "lesions": f"folder://{data}/lesions",
    }
    with pytest.raises(ConfigError, match="hold no known layout"):
        find_sets((), tmp_path)


def test_fewer_targets_are_drawn_by_name(data):
    uri = f"folder://{data}/lesions"
    whole, some = TableSet("x", uri, 2, 0), TableSet("x", uri, 2, 0, 2)
    assert len(some.targets) == 2
    assert {one.name for one in some.targets} < {one.name for one in whole.targets}
    assert some.references == whole.references


def test_other_features_are_allowed_and_said(data, tmp_path):
    config = TableConfig(1, "fake", "segmenter", 5, references=1, budgets=(2,), resamples=20)
    said = []
    result = measure_table(
        config,
        {"lesions": f"folder://{data}/lesions"},
        agent("attacker"),
        agent("defender"),
        tmp_path,
        said.append,
        progress=False,
    )
    assert result["config"]["notes"] == said
    assert "trained on the features 'fake', not on 'segmenter'" in said[0]
    assert "grid of 6, not of 5" in said[1]
    with pytest.raises(ConfigError, match="given as attacker is a trained defender"):
        measure_table(config, {}, agent("defender"), agent("defender"), tmp_path, str)


def test_the_command_prints_and_writes_four_files(capsys, data, agents, tmp_path):
    code, out, _ = run(
        capsys,
        *("--table", 1, "--data", data, "--agents", agents, *MODELS, "--references", 2, "--budgets", 2, 3),
        *(
            "--resamples",
            20,
            "--runs",
            tmp_path / "runs",
            "--out",
            tmp_path / "out",
            "--json",
            tmp_path / "t.json",
        ),
    )
    assert code == 0
    written = {path.suffix: path for path in (tmp_path / "out").iterdir()}
    assert set(written) == {".json", ".csv", ".tex", ".md"}
    result = json.loads(written[".json"].read_text())
    assert result == json.loads((tmp_path / "t.json").read_text())
    assert result["command"] == (
        f"ppd evaluate --references 2 --table 1 --agents {agents} --data {data.name} --budgets 2 3 "
        "--segmenter fake --features fake --resamples 20"
    ).replace("--references 2 --table 1", "--table 1 --references 2")
    assert str(data) not in written[".json"].read_text()
    assert list(result["results"]["lesions"]) == ["2", "3"]
    page = written[".md"].read_text()
    for text in (out, page):
        assert "published: ISIC [1]" in text
        assert "Table 1: attack, defence and feature matching, 2 actions each" in text
    line = next(line for line in page.splitlines() if line.startswith("| Ideal prompts"))
    ideal = result["results"]["lesions"]["2"]["ideal"]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2] == f"{ideal['mdsc']:.1f} / {ideal['miou']:.1f}"
    assert cells[3:] == ["78.5 / 69.4", "87.3 / 78.7", "83.0 / 73.9"]
    rows = list(csv.DictReader(written[".csv"].open()))
    kinds = [row["kind"] for row in rows]
    assert [kinds.count(kind) for kind in ("measured", "difference", "published")] == [20, 12, 15]
    tex = written[".tex"].read_text()
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 10
    assert not re.search(r"(?<!\\)_", tex)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--table", 1, "--suite", "controls"), "name one of them"),
        (("--table", 1, "--seeds", 0, 1), "one seed"),
        (("--table", 1, "--references", 0), "references must be at least 1"),
        (("--table", 1, "--budgets", 3, 3), "none twice"),
        (("--table", 2, "--methods", "guessing"), "Unknown one-shot method 'guessing'"),
        (("--table", 1, "--defender", "nobody"), "There is no defender 'nobody'"),
        (("--table", 1, "--segmenter", "nothing"), "nothing"),
        (("--table", 1, "--data", "/no/such/folder"), "/no/such/folder"),
        (("--table", 1, "--targets", 0), "targets must be at least 1"),
        (("--table", 1, "--grid", 0), "grid must be at least 1"),
    ],
)
def test_bad_arguments_are_one_sentence(capsys, data, agents, tmp_path, arguments, says):
    defaults = {"--agents": agents, "--scenes": f"folder://{data}/lesions", "--runs": tmp_path}
    if "--data" in arguments:
        del defaults["--scenes"]
    given = [part for pair in defaults.items() for part in pair]
    code, _, err = run(capsys, *given, *MODELS, *arguments)
    assert code == 2
    assert says in err.splitlines()[-1]
    assert "Traceback" not in err


def test_too_many_references_for_a_set_are_refused_or_left_out(capsys, agents, tmp_path):
    write_set(tmp_path / "data" / "one", ["only"])
    write_set(tmp_path / "data" / "two", ["a", "b"])
    common = ("--table", 1, "--agents", agents, *MODELS, "--budgets", 2, "--runs", tmp_path / "runs")
    code, _, err = run(capsys, *common, "--scenes", f"folder://{tmp_path}/data/one")
    assert code == 2
    assert "another image" in err
    code, out, _ = run(capsys, *common, "--data", tmp_path / "data", "--resamples", 20)
    assert code == 0
    assert "Left out one: " in out
