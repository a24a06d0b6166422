"""What ``ppd data`` tells: what was found, what is broken, what is missing; and the references."""

import json

import numpy as np
import pytest
from published_layouts import (
    box,
    coco,
    fss1000,
    grey,
    isic,
    kvasir,
    rectangle,
    save,
    voc,
    voc_mask,
    voc_values,
)

from ppd_agents.cli import main
from ppd_agents.inspection import check_path, check_scenes, list_references
from ppd_env.errors import PPDError
from ppd_env.scenes import sources

pytestmark = pytest.mark.usefixtures("fresh_sources")


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return left.value.code, capsys.readouterr().out


def test_every_broken_file_is_named_and_the_rest_is_counted(root):
    kvasir(root)
    images, masks = root / "Kvasir-SEG" / "images", root / "Kvasir-SEG" / "masks"
    names = sorted(path.stem for path in images.iterdir())
    (images / f"{names[1]}.jpg").write_bytes(b"")
    (masks / f"{names[4]}.jpg").write_bytes((masks / f"{names[4]}.jpg").read_bytes()[:150])
    save(masks / f"{names[6]}.jpg", np.zeros((24, 36), np.uint8))
    save(masks / f"{names[8]}.jpg", grey(box(8, 30, 30)))
    (masks / f"{names[9]}.jpg").unlink()
    (images / f"{names[11]}.jpg").unlink()
    (masks / f"{names[11]}.jpg").unlink()
    (found,) = check_path(root)
    assert (found.usable, found.groups, found.classes) == (19, 19, 0)
    told = {number: next(p for p in found.problems if names[number] in p) for number in (1, 4, 6, 8, 9)}
    assert len(found.problems) == 5
    assert "0 bytes" in told[1]
    assert "cut short" in told[4] or "not an image" in told[4]
    assert "empty mask" in told[6]
    assert "30 x 30 pixels, its image" in told[8]
    assert "has no mask" in told[9]
    assert "24 of the 1000 published images" in found.missing[0]
    assert f"{names[11]}.jpg: is named in kavsir_bboxes.json" in found.missing[1]
    assert not found.whole
    assert "https://datasets.simula.no" in found.text()


def test_a_set_is_whole_only_with_all_that_was_published(root):
    fss1000(root, images=3)
    found = check_scenes(f"fss1000://{root}?split=all")
    assert (found.usable, found.classes, found.problems) == (9, 3, ())
    assert "holds 3 of the 1000 published classes" in found.missing[0]
    assert any("apple: holds 3 of 10 images" in line for line in found.missing)


def test_a_path_with_several_sets_is_checked_to_the_end(root, capsys):
    isic(root, "2017", "val")
    (root / "ISIC2018_Task1-2_Test_Input").mkdir()  # unpacked, but not its masks
    voc(root, {"2007_000001": voc_values((3, 2, 20), void=(20, 24))})
    coco(root, [{"segmentation": rectangle(2, 2, 20, 20)}, {"segmentation": [], "image_id": 2}])
    target = root / "found.json"
    code, out = run(capsys, "data", "check", root, "--json", target)
    assert code == 1
    found = {
        one["uri"].partition("://")[0] + one["uri"].rpartition("=")[2]: one
        for one in json.loads(target.read_text())["sets"]
    }
    assert {key: one["usable"] for key, one in found.items()} == {
        "isicval": 6,
        "isictest": 0,
        "vocval": 1,
        "cocoannotations/instances_val2017.json": 1,
    }
    assert (
        "holds no ISIC2018_Task1-2_Test_Input with ISIC2018_Task1_Test_GroundTruth"
        in found["isictest"]["problems"][0]
    )
    (problem,) = found["cocoannotations/instances_val2017.json"]["problems"]
    assert "annotation 2" in problem
    assert problem in out
    assert found["vocval"]["published"]["images"] == 1449
    assert found["isicval"]["published"]["licence"]


def test_nothing_that_is_known(root, capsys):
    with pytest.raises(PPDError, match=r"holds no known layout(.|\n)*VOCdevkit"):
        check_path(root)
    code, _ = run(capsys, "data", "check", root / "nowhere")
    assert code == 2


def test_a_whole_folder_is_fine(root, capsys):
    save(root / "images" / "a.png", np.zeros((24, 36, 3), np.uint8))
    save(root / "masks" / "a.png", grey(box()))
    code, out = run(capsys, "data", "check", root)
    assert code == 0
    assert "1 usable scenes in 1 groups, 0 broken, 0 missing." in out
    sources._opened.clear()
    (root / "masks" / "a.png").write_bytes(b"torn")
    assert run(capsys, "data", "check", root)[0] == 1


def test_a_long_list_is_cut_in_print_and_whole_in_the_file(root, capsys):
    isic(root, images=34)
    for path in (root / "ISIC2018_Task1_Test_GroundTruth").glob("*.png"):
        path.write_bytes(b"torn")
    target = root / "found.json"
    code, out = run(capsys, "data", "check", f"isic://{root}", "--json", target)
    assert code == 1
    assert "... and 4 more" in out
    assert out.count("_segmentation.png: is not an image") == 30
    assert len(json.loads(target.read_text())["problems"]) == 34


def test_references_are_listed(root, capsys):
    uri = f"kvasir://{kvasir(root)}"
    target = root / "chosen.json"
    code, out = run(capsys, "data", "references", uri, "--count", "6", "--seed", "2", "--json", target)
    assert code == 0
    found = json.loads(target.read_text())
    assert (found["name"], found["seed"], found["targets"]) == ("kvasir", 2, 19)
    assert [one["rank"] for one in found["chosen"]] == list(range(6))
    for one in found["chosen"]:
        assert f"{one['rank']}  {one['name']}" in out
    assert "the rule and your files' names decide" in out


def test_published_references_are_marked():
    text = list_references("photos://test", 3, 0).text()
    assert text.count("(as published)") == 3


def test_a_voc_mask_in_colour_is_a_problem_not_a_crash(root):
    voc(root, {"2007_000001": voc_values((3, 2, 20)), "2007_000002": voc_values((4, 2, 20))})
    path = root / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000002.png"
    voc_mask(voc_values((4, 2, 20))).convert("RGB").save(path)
    (found,) = check_path(root)
    assert found.usable == 1
    assert "coloured mask" in found.problems[0]
