"""coco://: annotation files, their shapes, crowds, and what is wrong with them."""

import json

import numpy as np
import pytest
from published_layouts import HEIGHT, WIDTH, coco, rectangle

from ppd_env.errors import ConfigError, SceneError
from ppd_env.scenes import sources
from ppd_env.scenes.datasets.coco_masks import decompress, draw_shape
from ppd_env.scenes.datasets.recognise import recognise
from ppd_env.scenes.sources import open_source

BOX = (4, 6, 20, 18)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(sources, "_opened", {})


def pixels(left, top, right, bottom, size=(HEIGHT, WIDTH)):
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def runs(mask):
    """The uncompressed RLE of a mask."""
    flat = np.r_[False, mask.T.ravel()]
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.r_[0, edges, mask.size]).tolist()
    return {"size": list(mask.shape), "counts": counts}


def by_name(uri):
    source = open_source(uri)
    return {entry.name: source[index] for index, entry in enumerate(source.entries)}


def test_a_polygon_holds_the_pixels_whose_centres_are_inside():
    np.testing.assert_array_equal(draw_shape(rectangle(*BOX), HEIGHT, WIDTH), pixels(*BOX))
    shifted = [value + 0.4 for value in BOX]  # no centre is crossed
    np.testing.assert_array_equal(draw_shape(rectangle(*shifted), HEIGHT, WIDTH), pixels(*BOX))
    triangle = draw_shape([[0, 0, 20, 0, 0, 20]], HEIGHT, WIDTH)
    assert triangle.sum() == pytest.approx(200, abs=10)
    assert triangle[0, 18]
    assert not triangle[18, 18]


def test_several_polygons_are_united_and_cut_at_the_border():
    both = draw_shape(rectangle(0, 0, 4, 4) + rectangle(30, 20, 60, 60), HEIGHT, WIDTH)
    np.testing.assert_array_equal(both, pixels(0, 0, 4, 4) | pixels(30, 20, WIDTH, HEIGHT))


# Encoded by pycocotools 2.0.11.
COMPRESSED = {
    ";4500NLO43`0": ((9, 7), 15),
    "];o2i000000000TNK55KK55KK55KK55g100000000000000Qf0[Md\\O0000000": ((120, 30), 1585),
}


@pytest.mark.parametrize(("text", "expected"), COMPRESSED.items())
def test_compressed_runs_are_those_of_pycocotools(text, expected):
    (height, width), area = expected
    mask = draw_shape({"size": [height, width], "counts": text}, height, width)
    assert mask.sum() == area
    plain = runs(mask)
    assert decompress(text) == plain["counts"]
    np.testing.assert_array_equal(draw_shape(plain, height, width), mask)


def test_the_small_compressed_mask_is_the_one_that_was_encoded():
    expected = pixels(1, 2, 5, 6, (9, 7))
    expected[4, 3] = False
    np.testing.assert_array_equal(draw_shape({"size": [9, 7], "counts": ";4500NLO43`0"}, 9, 7), expected)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (None, "neither a list of polygons nor an RLE"),
        ([], "neither a list of polygons"),
        ([[1, 2, 3, 4]], "at least three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "at least three points"),
        ([["a", 2, 3, 4, 5, 6]], "something else than numbers"),
        ([[1, 2, 3, 4, 5, float("nan")]], "at least three points"),
        ({"size": [9, 9], "counts": [81]}, r"size \[9, 9\], the image of \[24, 36\]"),
        ({"size": [HEIGHT, WIDTH], "counts": [5, 6]}, "cover 11 pixels, the image has 864"),
        ({"size": [HEIGHT, WIDTH], "counts": [900, -36]}, "whole numbers from 0"),
        ({"size": [HEIGHT, WIDTH], "counts": "\x01"}, "the character"),
        ({"size": [HEIGHT, WIDTH], "counts": "Z"}, "cut short"),
    ],
)
def test_shapes_that_make_no_sense(shape, reason):
    with pytest.raises(ValueError, match=reason):
        draw_shape(shape, HEIGHT, WIDTH)


ANNOTATIONS = (
    {"segmentation": rectangle(*BOX)},
    {"segmentation": rectangle(24, 2, 30, 8)},
    {"segmentation": runs(pixels(0, 0, 3, 3)), "category_id": 2},
    {"segmentation": runs(pixels(2, 10, 30, 20)), "image_id": 2, "category_id": 2},
)


def test_one_scene_per_image_and_category(tmp_path):
    scenes = by_name(f"coco://{coco(tmp_path, ANNOTATIONS)}")
    assert list(scenes) == ["cat/000000000001", "dog/000000000001", "dog/000000000002"]
    np.testing.assert_array_equal(scenes["cat/000000000001"].mask, pixels(*BOX) | pixels(24, 2, 30, 8))
    np.testing.assert_array_equal(scenes["dog/000000000002"].mask, pixels(2, 10, 30, 20))
    assert scenes["cat/000000000001"].group == scenes["dog/000000000001"].group == "000000000001"
    assert all(scene.void is None for scene in scenes.values())


def test_one_scene_per_instance(tmp_path):
    scenes = by_name(f"coco://{coco(tmp_path, ANNOTATIONS)}?per=instance")
    assert list(scenes) == [
        "cat/000000000001-1",
        "cat/000000000001-2",
        "dog/000000000001-3",
        "dog/000000000002-4",
    ]
    np.testing.assert_array_equal(scenes["cat/000000000001-2"].mask, pixels(24, 2, 30, 8))


CROWDS = (
    {"segmentation": rectangle(*BOX)},
    {"segmentation": runs(pixels(2, 2, 8, 12)), "iscrowd": 1},
    {"segmentation": runs(pixels(0, 0, 9, 9)), "iscrowd": 1, "image_id": 2},
)


@pytest.mark.parametrize(("per", "end"), [("category", ""), ("instance", "-1")])
def test_a_crowd_counts_neither_way(tmp_path, per, end):
    scenes = by_name(f"coco://{coco(tmp_path, CROWDS)}?per={per}")
    assert list(scenes) == [f"cat/000000000001{end}"]  # image 2 holds a crowd and no object
    (scene,) = scenes.values()
    np.testing.assert_array_equal(scene.mask, pixels(*BOX))
    np.testing.assert_array_equal(scene.void, pixels(2, 2, 8, 12) & ~pixels(*BOX))


def test_a_crowd_is_an_object_where_asked(tmp_path):
    scenes = by_name(f"coco://{coco(tmp_path, CROWDS)}?crowd=mask")
    assert list(scenes) == ["cat/000000000001", "cat/000000000002"]
    np.testing.assert_array_equal(scenes["cat/000000000001"].mask, pixels(*BOX) | pixels(2, 2, 8, 12))
    assert scenes["cat/000000000001"].void is None


def broken(tmp_path, **changes):
    """The annotation file with parts replaced."""
    coco(tmp_path, ANNOTATIONS)
    path = tmp_path / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    for key, value in changes.items():
        content[key] = content[key] + value if isinstance(value, list) else value
    path.write_text(json.dumps(content))
    return f"coco://{tmp_path}"


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"id": 9, "image_id": 77, "category_id": 1, "segmentation": []}, "belongs to image 77"),
        ({"id": 9, "image_id": 1, "category_id": 8, "segmentation": []}, "has the category 8"),
        ({"id": 9, "image_id": 1, "category_id": 1}, "has no segmentation"),
        ({"id": 9, "image_id": "1", "category_id": 1, "segmentation": []}, "has image_id '1'"),
        ({"id": 9, "image_id": 1, "category_id": 1, "segmentation": [], "iscrowd": 2}, "iscrowd 2"),
        (17, "is no JSON object"),
    ],
)
def test_an_annotation_that_makes_no_sense_is_named_and_stops_no_other(tmp_path, entry, reason):
    source = open_source(broken(tmp_path, annotations=[entry]))
    assert len(source.listing()) == 3
    assert source[0].mask.any()
    with pytest.raises(SceneError, match=reason) as caught:
        source[3]
    assert "instances_val2017.json: annotation" in caught.value.file


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"id": 1, "file_name": "x.jpg", "height": 4, "width": 4}, "the id 1 of another image"),
        ({"id": 5, "file_name": "../x.jpg", "height": 4, "width": 4}, "path below the folder"),
        ({"id": 5, "file_name": "x.jpg", "height": 0, "width": 4}, "numbers of pixels"),
        ({"file_name": "x.jpg", "height": 4, "width": 4}, "has the id None"),
    ],
)
def test_an_image_that_makes_no_sense_is_named(tmp_path, entry, reason):
    source = open_source(broken(tmp_path, images=[entry]))
    assert len(source.listing()) == 3
    with pytest.raises(SceneError, match=reason):
        source[3]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"annotations": None}, "is no COCO annotation file"),
        ({"categories": [{"id": 1, "name": "bird"}]}, "two categories with the id 1"),
        ({"categories": [{"name": "bird"}]}, "needs a whole id and a name"),
    ],
)
def test_a_file_that_makes_no_sense_as_a_whole(tmp_path, changes, reason):
    with pytest.raises(SceneError, match=reason):
        open_source(broken(tmp_path, **changes))


def test_files_that_are_not_there_or_cut_short(tmp_path):
    coco(tmp_path, ANNOTATIONS)
    path = tmp_path / "annotations" / "instances_val2017.json"
    with pytest.raises(SceneError, match="cannot be read"):
        open_source(f"coco://{tmp_path}?annotations=annotations/none.json")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(SceneError, match="is no JSON, or cut short"):
        open_source(f"coco://{tmp_path}")


def test_an_undrawable_annotation_and_a_wrong_size_break_their_scene_only(tmp_path):
    source = open_source(
        broken(tmp_path, annotations=[{**ANNOTATIONS[0], "id": 9, "image_id": 2, "category_id": 1}])
    )
    assert len(source) == 4
    path = source.entries[0].image
    path.write_bytes((tmp_path / "val2017" / "000000000002.jpg").read_bytes()[:300])
    with pytest.raises(SceneError, match=r"cut short|not an image"):
        source[0]
    sources._opened.clear()
    bad = {"id": 10, "image_id": 2, "category_id": 1, "segmentation": [[1, 2]]}
    source = open_source(broken(tmp_path, annotations=[bad]))
    with pytest.raises(SceneError, match="annotation 10: cannot be drawn: a polygon needs"):
        source[1]
    assert source[0].mask.any()


def test_the_size_must_be_the_described_one(tmp_path):
    coco(tmp_path, ANNOTATIONS)
    path = tmp_path / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["images"][0]["height"] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(SceneError, match=r"36 x 24 pixels, instances_val2017\.json describes it as 36 x 25"):
        open_source(f"coco://{tmp_path}")[0]


def test_the_signature_knows_the_annotations_and_how_they_are_used(tmp_path):
    uri = f"coco://{coco(tmp_path, ANNOTATIONS)}"
    seen = {open_source(uri).signature, open_source(f"{uri}?crowd=mask").signature}
    sources._opened.clear()
    seen.add(open_source(uri).signature)
    assert len(seen) == 2
    sources._opened.clear()
    path = tmp_path / "annotations" / "instances_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = rectangle(4, 6, 20, 17)
    path.write_text(json.dumps(content))
    seen.add(open_source(uri).signature)
    assert len(seen) == 3


def test_files_are_found_by_their_published_names(tmp_path):
    coco(tmp_path, ANNOTATIONS)
    assert [uri.replace(str(tmp_path), "") for uri in recognise(tmp_path)] == [
        "coco://?annotations=annotations/instances_val2017.json"
    ]
    coco(tmp_path, ANNOTATIONS, images=("000000000007", "000000000008"), name="train2017")
    with pytest.raises(ConfigError, match=r"instances_train2017\.json, annotations/instances_val2017\.json"):
        open_source(f"coco://{tmp_path}")
    found = open_source(f"coco://{tmp_path}?annotations=annotations/instances_train2017.json")
    assert found.entries[0].image == tmp_path / "train2017" / "000000000007.jpg"
    assert found.missing() == [
        f"{tmp_path}/annotations/instances_train2017.json: describes 2 of the 118287 published images."
    ]
    with pytest.raises(SceneError, match="check images="):
        open_source(f"coco://{tmp_path}?annotations=annotations/instances_val2017.json&images=nowhere")
    with pytest.raises(ConfigError, match="unknown per 'pixel'"):
        open_source(f"coco://{tmp_path}?per=pixel")
