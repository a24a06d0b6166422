"""FSS-1000, PASCAL VOC, ISIC and Kvasir-SEG, each in its published layout."""

import json
import os
import shutil
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from published_layouts import ISIC, box, fss1000, grey, isic, kvasir, picture, save, voc, voc_mask, voc_values

from ppd_env.errors import ConfigError, SceneError
from ppd_env.paths import cache_dir
from ppd_env.scenes import sources
from ppd_env.scenes.datasets import voc as voc_module
from ppd_env.scenes.datasets.recognise import recognise
from ppd_env.scenes.scene import SceneSource, scene_class
from ppd_env.scenes.sources import open_source

pytestmark = pytest.mark.usefixtures("fresh_sources")


def names(uri):
    return [entry.name for entry in open_source(uri).entries]


def again(uri):
    """The source as another process would open it."""
    sources._opened.clear()
    return open_source(uri)


def assert_split(whole, *parts):
    assert sorted(name for part in parts for name in part) == sorted(whole)


def test_fss1000_reads_pairs_of_a_class(root):
    source = open_source(f"fss1000://{fss1000(root)}?split=all")
    assert isinstance(source, SceneSource)
    assert len(source) == 30
    index = names(source.uri).index("pear/3")
    scene = source[index]
    assert (scene.name, scene.group, scene.void) == ("pear/3", "pear/3", None)
    np.testing.assert_array_equal(scene.mask, box(13))
    assert scene.image.shape == (*box().shape, 3)


def test_fss1000_trains_on_images_drawn_by_seed_and_tests_on_the_others(root):
    base = f"fss1000://{fss1000(root)}"
    whole, train = names(f"{base}?split=all"), names(f"{base}?split=train&count=12")
    assert len(train) == 12
    assert train == sorted(train)
    assert_split(whole, train, names(f"{base}?split=test&count=12"))
    assert train != names(f"{base}?split=train&count=12&seed=1")
    assert set(names(f"{base}?split=train&count=5")) < set(train)


def test_the_draw_of_fss1000_is_the_published_one(root):
    # as `printf ppd-draw/1/fss1000/0/apple/1 | sha256sum`, for every image, puts them in order
    train = names(f"fss1000://{fss1000(root)}?count=4")
    assert train == ["pear/7", "whale/3", "whale/8", "whale/9"]


def test_a_missing_image_moves_no_other_one_in_the_draw(root):
    base = f"fss1000://{fss1000(root)}?split=train&count=12"
    before = names(base)
    for ending in ("jpg", "png"):
        (root / "fewshot_data" / before[0]).with_suffix(f".{ending}").unlink()
    after = [entry.name for entry in again(base).entries]
    assert set(before[1:]) <= set(after)
    assert len(set(after) - set(before)) == 1


def test_unseen_classes_of_fss1000_have_no_training_image(root):
    base = f"fss1000://{fss1000(root, classes=[f'c{i:02d}' for i in range(20)], images=2)}"
    trained = {scene_class(name) for name in names(f"{base}?split=train&count=10")}
    unseen = names(f"{base}?split=unseen&count=10")
    assert {scene_class(name) for name in unseen} == {f"c{i:02d}" for i in range(20)} - trained
    assert len(unseen) == 2 * (20 - len(trained))
    with pytest.raises(SceneError, match="split=test"):
        open_source(f"{base}?split=unseen&count=39")


def test_too_few_images_for_the_draw(root):
    with pytest.raises(SceneError, match="holds 30 images, too few to draw count=1000"):
        open_source(f"fss1000://{fss1000(root)}?split=train")


def test_a_list_keeps_classes_and_images_and_names_what_is_not_there(root):
    base = f"fss1000://{fss1000(root)}?split=all"
    (root / "fewshot_data" / "some.txt").write_text("whale\n\npear/2\nplum/1\n")
    source = open_source(f"{base}&list=some.txt")
    assert [entry.name for entry in source.entries[:-1]] == [
        "pear/2",
        *sorted(f"whale/{n}" for n in range(1, 11)),
    ]
    with pytest.raises(SceneError, match=r"plum/1.*not in"):
        source[len(source) - 1]
    (root / "fewshot_data" / "none.txt").write_text("plum\n")
    for query, reason in (("none.txt", "names nothing"), ("absent.txt", "cannot be read")):
        with pytest.raises(SceneError, match=reason):
            open_source(f"{base}&list={query}")


@pytest.mark.parametrize(("year", "split"), list(ISIC))
def test_isic_in_every_year_and_split(root, year, split):
    isic(root, year, split)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # licences and superpixels are known to lie there
        source = open_source(f"isic://{root}?year={year}&split={split}")
    assert [entry.name for entry in source.entries] == [f"ISIC_{number:07d}" for number in range(6)]
    np.testing.assert_array_equal(source[4].mask, box(4))
    assert source.name == f"isic{year}"
    assert source.missing() == [
        f"ISIC {year}, {split}: 6 of the {source.published.images} published images are here."
    ]


def test_isic_says_which_folders_a_split_needs(root):
    isic(root, "2018", "train")
    with pytest.raises(SceneError, match=r"ISIC2018_Task1-2_Test_Input with ISIC2018_Task1_Test_GroundTruth"):
        open_source(f"isic://{root}")
    with pytest.raises(ConfigError, match="unknown split 'val'; known: train, test"):
        open_source(f"isic://{root}?year=2016&split=val")


def test_isic_unpacked_into_a_folder_of_the_same_name(root):
    isic(root)
    for folder in ISIC["2018", "test"]:
        shutil.move(root / folder, root / "aside")
        (root / folder).mkdir()
        shutil.move(root / "aside", root / folder / folder)
    assert len(open_source(f"isic://{root}")) == 6


def test_kvasir_masks_are_thresholded_because_they_are_jpeg(root):
    source = open_source(f"kvasir://{kvasir(root)}")
    stored = np.asarray(Image.open(source.entries[0].mask))
    assert len(np.unique(stored)) > 2
    for number in (0, 7):
        wrong = source[number].mask ^ box(number)
        assert wrong.mean() < 0.01


def test_kvasir_split_holds_out_the_same_share(root):
    base = f"kvasir://{kvasir(root)}"
    test = names(f"{base}?split=test")
    assert len(test) == 3
    assert_split(names(base), test, names(f"{base}?split=train"))
    assert test != names(f"{base}?split=test&seed=1")


def test_a_list_names_images_with_or_without_ending(root):
    kvasir(root)
    (root / "Kvasir-SEG" / "val.txt").write_text(f"cju{2:022d}\ncju{5:022d}.jpg\n")
    assert names(f"kvasir://{root}?list=val.txt") == [f"cju{2:022d}", f"cju{5:022d}"]


def test_count_draws_scenes_by_seed(root):
    base = f"kvasir://{kvasir(root)}"
    five = names(f"{base}?count=5&seed=3")
    assert len(five) == 5
    assert five == sorted(five)
    assert set(five) < set(names(f"{base}?count=9&seed=3"))
    assert five != names(f"{base}?count=5")
    with pytest.raises(SceneError, match="holds 25 scenes, fewer than count=26"):
        open_source(f"{base}?count=26")


VOC_MASKS = {
    "2007_000033": voc_values((1, 2, 12), (15, 14, 24), void=(11, 15)),
    "2007_000042": voc_values((19, 2, 30)),
    "2007_000061": voc_values((15, 0, 8)),
}


def test_voc_has_one_scene_per_image_and_class(root):
    source = open_source(f"voc://{voc(root, VOC_MASKS)}")
    assert [(entry.name, entry.group) for entry in source.entries] == [
        ("aeroplane/2007_000033", "2007_000033"),
        ("person/2007_000033", "2007_000033"),
        ("person/2007_000061", "2007_000061"),
        ("train/2007_000042", "2007_000042"),
    ]
    scene = source[0]
    np.testing.assert_array_equal(scene.mask, VOC_MASKS["2007_000033"] == 1)
    np.testing.assert_array_equal(scene.void, VOC_MASKS["2007_000033"] == 255)
    assert source[2].void is None


@pytest.mark.parametrize("inside", [".", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_is_found_from_every_folder_above(root, inside):
    voc(root, VOC_MASKS)
    assert len(open_source(f"voc://{root / inside}")) == 4


def test_voc_listing_is_kept_until_a_mask_changes(root, monkeypatch):
    uri = f"voc://{voc(root, VOC_MASKS)}"
    read = []
    decode = voc_module.read_values
    monkeypatch.setattr(voc_module, "read_values", lambda path: read.append(path) or decode(path))
    first = open_source(uri)
    assert len(read) == 3
    assert again(uri).signature == first.signature
    assert len(read) == 3
    mask = root / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000061.png"
    voc_mask(voc_values((7, 0, 8))).save(mask)
    os.utime(mask, ns=(1, 1))
    changed = again(uri)
    assert "car/2007_000061" in names(uri)
    assert changed.signature != first.signature
    (kept,) = [p for p in (cache_dir() / "listings").iterdir() if "car" not in p.name][:1]
    kept.write_text("{ cut")
    assert names(uri) == [entry.name for entry in again(uri).entries]


def test_voc_names_what_is_broken_and_goes_on(root):
    voc(root, VOC_MASKS)
    base = root / "VOCdevkit" / "VOC2012"
    (base / "JPEGImages" / "2007_000042.jpg").unlink()
    voc_mask(np.full((24, 36), 40, np.uint8)).save(base / "SegmentationClass" / "2007_000061.png")
    with (base / "ImageSets" / "Segmentation" / "val.txt").open("a") as file:
        file.write("2008_000001\n")
    save(base / "JPEGImages" / "2008_000001.jpg", picture())
    source = open_source(f"voc://{root}")
    reasons = {}
    for index in range(len(source)):
        try:
            source[index]
        except SceneError as error:
            reasons[Path(error.file).name] = error.reason
    assert len(source.listing()) == 2
    assert "list of the split names it" in reasons["2007_000042.jpg"]
    assert "value 40, which is no class" in reasons["2007_000061.png"]
    assert "does not exist" in reasons["2008_000001.png"]


def test_voc_lists_its_splits_where_one_is_not_there(root):
    voc(root, VOC_MASKS)
    with pytest.raises(SceneError, match="splits here: val"):
        open_source(f"voc://{root}?split=train")
    for path in (root, root / "VOCdevkit" / "VOC2012"):
        with pytest.raises(SceneError, match="holds no VOCdevkit/VOC2007"):
            open_source(f"voc://{path}?year=2007")


BUILDERS = {
    "fss1000": (fss1000, "?split=all"),
    "isic": (isic, ""),
    "kvasir": (kvasir, ""),
    "voc": (lambda root: voc(root, VOC_MASKS), ""),
}


@pytest.mark.parametrize("scheme", list(BUILDERS))
def test_signature_changes_with_any_file_and_with_nothing_else(root, scheme):
    build, query = BUILDERS[scheme]
    uri = f"{scheme}://{build(root)}{query}"
    before = again(uri).signature
    assert again(uri).signature == before
    for side in ("image", "mask"):
        path = getattr(open_source(uri).entries[0], side)
        os.utime(path, ns=(123, 123))
        after = again(uri).signature
        assert after != before
        before = after


@pytest.mark.parametrize("scheme", list(BUILDERS))
def test_one_broken_image_stops_no_other(root, scheme):
    build, query = BUILDERS[scheme]
    uri = f"{scheme}://{build(root)}{query}"
    source = open_source(uri)
    source.entries[0].image.write_bytes(b"\xff\xd8 torn")
    with pytest.raises(SceneError) as caught:
        source[0]
    assert caught.value.file == str(source.entries[0].image)
    assert source[len(source) - 1].mask.any()


@pytest.mark.parametrize("scheme", list(BUILDERS))
def test_nothing_there_says_what_to_get_and_where(root, scheme):
    with pytest.raises(SceneError, match=r"holds no .*https?://"):
        open_source(f"{scheme}://{root}")
    with pytest.raises(SceneError, match="is not a folder"):
        open_source(f"{scheme}://{root}/nowhere")
    with pytest.raises(ConfigError, match="name the folder"):
        open_source(f"{scheme}://")
    with pytest.raises(ConfigError, match="unknown key 'colour'"):
        open_source(f"{scheme}://{root}?colour=red")


@pytest.mark.parametrize("scheme", list(BUILDERS))
def test_layouts_are_recognised_by_their_folder(root, scheme):
    build, _ = BUILDERS[scheme]
    build(root)
    (uri,) = recognise(root)
    assert uri.startswith(f"{scheme}://{root}")
    assert len(open_source(uri)) > 0


def test_several_layouts_at_one_path_are_all_recognised(root):
    isic(root, "2016", "train")
    isic(root, "2018", "val")
    kvasir(root)
    for split in ("train", "val", "trainval"):
        voc(root, VOC_MASKS, split=split)
    voc(root, VOC_MASKS, year="2007", split="trainval")
    found = [uri.removeprefix(f"{root}") for uri in recognise(root)]
    assert [uri.replace(str(root), "") for uri in found] == [
        "voc://?year=2007&split=trainval",
        "voc://?year=2012&split=train",
        "voc://?year=2012&split=val",
        "isic://?year=2016&split=train",
        "isic://?year=2018&split=val",
        "kvasir://",
    ]


def test_a_plain_folder_is_no_kvasir(root):
    save(root / "images" / "a.png", picture())
    save(root / "masks" / "a.png", grey(box()))
    assert recognise(root) == [f"folder://{root}"]
    (root / "kavsir_bboxes.json").write_text(json.dumps({"a": {}}))
    assert recognise(root) == [f"kvasir://{root}"]


def test_ten_thousand_images_are_listed_in_seconds_without_decoding(root):
    for category in range(1000):
        folder = root / "fewshot_data" / f"class_{category:04d}"
        folder.mkdir(parents=True)
        for number in range(1, 11):
            (folder / f"{number}.jpg").touch()
            (folder / f"{number}.png").touch()
    before = time.process_time()
    source = open_source(f"fss1000://{root}?split=train")
    assert time.process_time() - before < 8
    assert len(source) == 1000
    assert source.missing() == []


@pytest.mark.skipif(not os.environ.get("PPD_DATA"), reason="needs real images under $PPD_DATA")
def test_real_polyps_with_jpeg_masks(root):
    real = Path(os.environ["PPD_DATA"]) / "kvasir_seg"
    for path in sorted((real / "images").iterdir())[:30]:
        base = root / "Kvasir-SEG"
        for folder in ("images", "masks"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, base / "images" / path.name)
        with Image.open(real / "masks" / f"{path.stem}.png") as mask:
            mask.convert("RGB").save(base / "masks" / path.name, quality=80)
    source, plain = open_source(f"kvasir://{root}"), open_source(f"folder://{real}")
    places = {entry.name: index for index, entry in enumerate(plain.entries)}
    assert len(source) == 30
    for scene in map(source.__getitem__, range(30)):
        truth = plain[places[scene.name]].mask
        assert (scene.mask ^ truth).sum() < 0.01 * truth.sum() + 20
