"""One-shot references: the published rule, and that no reference is a target."""

import hashlib
import json
import os
import shutil
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from published_layouts import box, fss1000, grey, kvasir, picture, save, voc, voc_values

from ppd_env.errors import ConfigError
from ppd_env.scenes import sources
from ppd_env.scenes.references import VERSION, PublishedList, choosing, published_lists, references, targets
from ppd_env.scenes.sources import open_source

pytestmark = pytest.mark.usefixtures("fresh_sources")


def by_hand(name, seed, scenes):
    def key(scene):
        return hashlib.sha256(f"ppd-reference/{VERSION}/{name}/{seed}/{scene}".encode()).hexdigest()

    return sorted(scenes, key=key)


def chosen(uri, **options):
    sources._opened.clear()
    return [reference.name for reference in references(uri, **options)]


def test_the_rule_is_the_hash_of_set_seed_and_name(root):
    uri = f"kvasir://{kvasir(root)}"
    names = [f"cju{number:022d}" for number in range(25)]
    assert chosen(uri) == by_hand("kvasir", 0, names)[:5]
    assert chosen(uri, count=7, seed=3) == by_hand("kvasir", 3, names)[:7]
    found = references(uri)
    assert [reference.rank for reference in found] == [0, 1, 2, 3, 4]
    assert [open_source(uri)[reference.index].name for reference in found] == [r.name for r in found]


def test_every_class_has_its_own(root):
    uri = f"fss1000://{fss1000(root)}?split=all"
    found = references(uri, count=2)
    assert [(one.rank, one.category) for one in found] == [
        (rank, category) for rank in (0, 1) for category in ("apple", "pear", "whale")
    ]
    pears = [one.name for one in found if one.category == "pear"]
    assert pears == by_hand("fss1000", 0, [f"pear/{number}" for number in range(1, 11)])[:2]


def test_losing_a_file_moves_no_other_reference(root):
    uri = f"kvasir://{kvasir(root)}"
    before = chosen(uri)
    (root / "Kvasir-SEG" / "images" / f"{before[1]}.jpg").unlink()
    after = chosen(uri)
    assert after[:4] == [before[0], *before[2:]]
    assert after[4] not in before


def test_unreadable_and_tiny_objects_are_passed_over(root):
    uri = f"kvasir://{kvasir(root)}"
    before = chosen(uri, count=4)
    masks = root / "Kvasir-SEG" / "masks"
    (masks / f"{before[0]}.jpg").write_bytes(b"torn")
    speck = np.zeros((24, 36), bool)
    speck[3, 4] = True
    save(masks / f"{before[2]}.jpg", grey(speck), quality=100)
    assert chosen(uri, count=4)[:2] == [before[1], before[3]]


def test_tiny_objects_serve_where_a_class_has_no_others(root):
    for number in range(4):
        save(root / "images" / f"{number}.png", picture(number))
        speck = np.zeros((24, 36), bool)
        speck[number, 5] = True
        save(root / "masks" / f"{number}.png", grey(box(number) if number == 2 else speck))
    found = chosen(f"folder://{root}")
    assert found == ["2", *[name for name in by_hand("folder", 0, "0123") if name != "2"][:2]]


def test_a_target_is_left_in_every_class_and_no_reference_is_one(root):
    uri = f"fss1000://{fss1000(root, images=4)}?split=all"
    found = references(uri, count=9)
    assert len(found) == 9  # three of four in each of three classes
    source = open_source(uri)
    left = [source.entries[index].name for index in targets(uri, found)]
    assert len(left) == 3
    assert not set(left) & {one.name for one in found}


def test_an_image_with_several_classes_is_no_target_of_any(root):
    masks = {f"2007_{number:06d}": voc_values((8, 2, 16), (12, 18, 34)) for number in range(6)}
    masks["2008_000001"] = voc_values((20, 2, 30))
    uri = f"voc://{voc(root, masks)}"
    found = references(uri, count=1)
    assert [one.category for one in found] == ["cat", "dog"]  # the one tvmonitor is left without
    images = {one.group for one in found}
    left = [open_source(uri).entries[index] for index in targets(uri, found)]
    assert not images & {entry.group for entry in left}
    assert len(left) == 2 * (6 - len(images))


def test_scenes_without_files_are_one_class():
    found = references("photos://test", count=4)
    assert [one.category for one in found] == [""] * 4
    assert len({one.group for one in found}) == 4
    assert chosen("photos://test", count=3) == [one.name for one in found[:3]]


def test_arguments_that_make_no_sense(root):
    uri = f"kvasir://{kvasir(root, images=1)}"
    with pytest.raises(ConfigError, match="another image"):
        references(uri)
    for options in ({"count": 0}, {"seed": -1}):
        with pytest.raises(ConfigError, match="count of at least 1"):
            references(uri, **options)


LISTS = sorted(path for path in files("ppd_env.scenes.references").iterdir() if path.suffix == ".json")


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_published_lists_are_in_the_order_of_the_rule(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    title = content["title"] if content["set"] == content["title"] else f"{content['set']}-{content['title']}"
    assert path.name == f"{title}-v{content['version']}-seed{content['seed']}.json"
    everything = [name for names in content["candidates"].values() for name in names]
    assert len(set(everything)) == len(everything) >= 5
    for category, names in content["candidates"].items():
        places = [by_hand(content["set"], content["seed"], names).index(name) for name in names]
        falls = sum(before > after for before, after in pairwise(places))
        assert falls <= (content["set"] == "folder")  # small objects follow where a class has no others
        assert all(name.rpartition("/")[0] == category for name in names) or content["set"] == "photos"
    if content["set"] == "folder":
        assert sorted(content["sha256"]) == sorted(everything)
        assert all(len(digest) == 64 for digest in content["sha256"].values())


def test_what_was_published_is_recognised(monkeypatch, root):
    uri = f"kvasir://{kvasir(root)}"
    names = chosen(uri)
    assert published_lists("nothing-of-the-kind", VERSION, 0) == []
    known = PublishedList("kvasir", {"": names[:3]}, {})
    monkeypatch.setattr(choosing, "published_lists", lambda name, version, seed: [known])
    assert [one.published for one in references(uri)] == [True, True, True, False, False]


def test_a_folder_is_recognised_by_its_files(monkeypatch, root):
    for number in range(8):
        save(root / "images" / f"{number}.png", picture(number))
        save(root / "masks" / f"{number}.png", grey(box(number)))
    uri = f"folder://{root}"
    found = references(uri)
    image = root / "images" / f"{found[0].name}.png"
    assert found[0].sha256 == hashlib.sha256(image.read_bytes()).hexdigest()
    assert [one.published for one in found] == [None] * 5
    mine = PublishedList("mine", {"": [one.name for one in found]}, {one.name: one.sha256 for one in found})
    other = PublishedList("other", mine.candidates, dict.fromkeys(mine.sha256, 64 * "0"))
    monkeypatch.setattr(choosing, "published_lists", lambda name, version, seed: [other])
    assert [one.published for one in references(uri)] == [None] * 5  # the same names of other images
    monkeypatch.setattr(choosing, "published_lists", lambda name, version, seed: [other, mine])
    assert [one.published for one in references(uri)] == [True] * 5
    shutil.copy(root / "images" / f"{found[1].name}.png", image)
    assert [one.published for one in references(uri)] == [False, *[True] * 4]


@pytest.mark.skipif(not os.environ.get("PPD_DATA"), reason="needs real images under $PPD_DATA")
@pytest.mark.parametrize(
    "path", [path for path in LISTS if "folder-" in path.name], ids=lambda path: path.stem
)
def test_the_published_lists_of_real_folders_are_what_the_rule_gives(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    folder = Path(os.environ["PPD_DATA"]).absolute() / content["title"]
    found = references(f"folder://{folder}", seed=content["seed"])
    assert all(one.published for one in found)
    for category, names in content["candidates"].items():
        assert [one.name for one in found if one.category == category] == names[:5]


def test_the_published_list_of_photographs_is_what_the_rule_gives():
    [photographs] = published_lists("photos", VERSION, 0)
    listed = photographs.candidates[""]
    for uri in ("photos://train", "photos://test"):
        found = references(uri, count=3)
        here = {scene.name for scene in choosing.listing(open_source(uri))}
        assert here <= set(listed)
        assert [listed.index(one.name) for one in found] == sorted(listed.index(one.name) for one in found)
        assert all(one.published for one in found)
