"""folder://: pairing, and one clear error per kind of bad input."""

import resource
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from ppd_env.errors import ConfigError, SceneError
from ppd_env.features.fake import FakeFeatures
from ppd_env.scenes.bank import build_bank
from ppd_env.scenes.folder import FolderSource
from ppd_env.scenes.reading import MAX_SIDE, read_image
from ppd_env.segmenters.fake import FakeSegmenter
from ppd_env.uris import parse_uri

HEIGHT, WIDTH = 20, 30


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    return tmp_path


def picture(height=HEIGHT, width=WIDTH):
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (200, 40, 10)
    return image


def mask_of(height=HEIGHT, width=WIDTH, value=255, dtype=np.uint8):
    mask = np.zeros((height, width), dtype)
    mask[: height // 2, : width // 2] = value
    return mask


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def put(folder, stem="a", image=None, mask=None):
    save(folder / "images" / f"{stem}.png", picture() if image is None else image)
    save(folder / "masks" / f"{stem}.png", mask_of() if mask is None else mask)


def source(folder, query=""):
    return FolderSource(parse_uri(f"folder://{folder}{query}"))


def reason_of(folder, query=""):
    with pytest.raises(SceneError) as caught:
        source(folder, query)[0]
    return caught.value


def test_reads_a_pair_as_rgb_and_bool(folder):
    put(folder)
    scene = source(folder)[0]
    assert (scene.name, scene.group) == ("a", "a")
    np.testing.assert_array_equal(scene.image, picture())
    np.testing.assert_array_equal(scene.mask, mask_of() > 0)


def test_pairs_by_stem_across_endings_and_named_folders(tmp_path):
    save(tmp_path / "in" / "x.1.jpg", picture())
    save(tmp_path / "out" / "x.1.png", mask_of())
    scenes = source(tmp_path, "?images=in&masks=out")
    assert [scene.name for scene in scenes] == ["x.1"]


def test_an_image_may_have_masks_of_several_classes_in_one_group(folder):
    save(folder / "images" / "a.png", picture())
    save(folder / "masks" / "cat" / "a.png", mask_of())
    save(folder / "masks" / "dog" / "a.png", 255 - mask_of())
    scenes = source(folder)
    assert [scene.name for scene in scenes] == ["cat/a", "dog/a"]
    assert {scene.group for scene in scenes} == {"a"}
    assert not (scenes[0].mask & scenes[1].mask).any()


def test_equal_stems_of_two_classes_do_not_mix(folder):
    for number, name in enumerate(("apple", "pear")):
        save(folder / "images" / name / "1.png", np.full((8, 8, 3), 10 * number, np.uint8))
        save(folder / "masks" / name / "1.png", mask_of(8, 8))
    scenes = source(folder)
    assert [(scene.name, int(scene.image[0, 0, 0])) for scene in scenes] == [("apple/1", 0), ("pear/1", 10)]


def test_pattern_names_masks_after_images(folder):
    save(folder / "images" / "a.png", picture())
    save(folder / "masks" / "a_segmentation.png", mask_of())
    assert source(folder, "?pattern={stem}_segmentation")[0].name == "a"


@pytest.mark.parametrize("side", ["images", "masks"])
def test_missing_partner_names_the_file_left_alone(folder, side):
    put(folder, "a")
    save(folder / side / "b.png", picture() if side == "images" else mask_of())
    scenes = source(folder)
    assert len(scenes) == 2
    with pytest.raises(SceneError, match=r"has no (image|mask) b") as caught:
        scenes[1]
    assert caught.value.file == str(folder / side / "b.png")
    assert scenes[0].name == "a"


def test_two_images_of_one_stem_are_ambiguous(folder):
    put(folder)
    save(folder / "images" / "a.jpg", picture())
    assert "a.jpg, a.png" in reason_of(folder).reason


def test_zero_bytes(folder):
    put(folder)
    (folder / "images" / "a.png").write_bytes(b"")
    error = reason_of(folder)
    assert error.file.endswith("images/a.png")
    assert "0 bytes" in error.reason


def test_not_an_image(folder):
    put(folder)
    (folder / "masks" / "a.png").write_text("no picture")
    error = reason_of(folder)
    assert error.file.endswith("masks/a.png")
    assert "not an image" in error.reason


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp", "webp"])
def test_truncated(folder, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    path = folder / "images" / f"a.{suffix}"
    save(path, noise)
    save(folder / "masks" / "a.png", mask_of(90, 90))
    path.write_bytes(path.read_bytes()[:700])
    error = reason_of(folder)
    assert error.file == str(path)
    assert "cut short" in error.reason or "not an image" in error.reason


def test_mask_of_another_size(folder):
    put(folder, mask=mask_of(HEIGHT, WIDTH + 1))
    assert "31 x 20 pixels, its image a.png is 30 x 20" in reason_of(folder).reason


def test_empty_mask(folder):
    put(folder, mask=mask_of(value=0))
    assert "empty mask" in reason_of(folder).reason


def test_many_values_ask_for_threshold_or_class(folder):
    mask = mask_of(value=7)
    mask[-1, -1] = 200
    put(folder, mask=mask)
    reason = reason_of(folder).reason
    assert "3 values (0, 7, 200)" in reason
    assert "threshold=T" in reason
    assert "class=K" in reason
    assert source(folder, "?threshold=8")[0].mask.sum() == 1
    assert source(folder, "?threshold=7")[0].mask.sum() == 151
    assert source(folder, "?class=7")[0].mask.sum() == 150
    assert "no pixel has the value 9 (values: 0, 7, 200)" in reason_of(folder, "?class=9").reason


def test_two_values_without_zero_are_not_guessed(folder):
    put(folder, mask=mask_of(value=3) + np.uint8(1))
    assert "2 values (1, 4)" in reason_of(folder).reason


def test_palette_mask_gives_its_indices(folder):
    put(folder)
    coloured = Image.fromarray(mask_of(value=15)).convert("P")
    indices = Image.fromarray(mask_of(value=15)).convert("L")
    coloured = Image.frombytes("P", indices.size, indices.tobytes())
    coloured.putpalette([i * 7 % 256 for i in range(768)])
    coloured.save(folder / "masks" / "a.png")
    np.testing.assert_array_equal(source(folder, "?class=15")[0].mask, mask_of() > 0)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA"])
def test_plain_masks_of_every_mode(folder, mode):
    put(folder)
    Image.fromarray(mask_of()).convert(mode).save(folder / "masks" / "a.png")
    np.testing.assert_array_equal(source(folder)[0].mask, mask_of() > 0)


def test_coloured_mask(folder):
    put(folder, mask=picture())
    assert "coloured mask" in reason_of(folder).reason


def test_transparent_mask(folder):
    layered = np.dstack([mask_of()] * 4)
    put(folder, mask=layered)
    assert "alpha" in reason_of(folder).reason


def test_sixteen_bit_mask_is_read_by_value(folder):
    put(folder, mask=mask_of(value=40000, dtype=np.uint16))
    np.testing.assert_array_equal(source(folder)[0].mask, mask_of() > 0)
    assert source(folder, "?class=40000")[0].mask.sum() == 150


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_image_says_how_to_convert(folder, channels, suffix):
    put(folder)
    (folder / "images" / "a.png").unlink()
    deep = np.full((HEIGHT, WIDTH, channels), 3000, np.uint16).squeeze()
    assert cv2.imwrite(str(folder / "images" / f"a.{suffix}"), deep)
    reason = reason_of(folder).reason
    assert "8 bits per channel" in reason or "not an image" in reason


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_greyscale_is_replicated(folder, suffix):
    save(folder / "images" / f"a.{suffix}", picture()[..., 0])
    save(folder / "masks" / f"a.{suffix}", mask_of())
    image = source(folder)[0].image
    np.testing.assert_array_equal(image, np.repeat(picture()[..., :1], 3, axis=2))


def test_transparency_is_composited_on_white(folder):
    layered = np.dstack([picture(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    layered[0, 0, 3] = 0
    put(folder, image=layered)
    image = source(folder)[0].image
    assert image[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(image[1:], picture()[1:])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_exif_rotation_is_applied_before_the_mask_is_compared(folder, orientation, suffix):
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(folder / "images" / f"a.{suffix}", stored, exif=exif)
    upright = (32, 16) if orientation >= 5 else (16, 32)
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    save(folder / "masks" / "a.png", mask_of(*upright))
    image = source(folder)[0].image
    assert image.shape[:2] == upright
    assert image[corner[orientation]].min() > 240
    assert (image > 128).all(axis=2).sum() == 64


def test_mask_drawn_before_turning_is_explained(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "images" / "a.png", picture(), exif=exif)
    save(folder / "masks" / "a.png", mask_of())
    assert "EXIF" in reason_of(folder).reason


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_12000_pixel_wide_image_is_scaled_down_with_its_mask(folder, suffix):
    save(folder / "images" / f"a.{suffix}", picture(3000, 12000))
    save(folder / "masks" / "a.png", mask_of(3000, 12000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scene = source(folder)[0]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert scene.image.shape == (1024, MAX_SIDE, 3)
    assert scene.mask.shape == (1024, MAX_SIDE)
    assert abs(scene.mask.mean() - 0.25) < 0.001
    assert scene.image[:500, :2000, 0].min() > 190
    assert grown < 450, f"{grown:.0f} MB"


def test_a_turned_large_jpeg_keeps_its_shape(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "images" / "a.jpg", picture(900, 9000), exif=exif)
    save(folder / "masks" / "a.png", mask_of(9000, 900))
    scene = source(folder)[0]
    assert scene.image.shape[:2] == scene.mask.shape == (MAX_SIDE, 410)


def test_a_speck_survives_scaling(folder):
    speck = np.zeros((200, 9000), np.uint8)
    speck[100, 4000] = 255
    put(folder, image=picture(200, 9000), mask=speck)
    assert source(folder)[0].mask.any()


def test_several_pictures_in_one_file(folder):
    put(folder)
    pages = [Image.fromarray(picture())] * 2
    (folder / "images" / "a.png").unlink()
    pages[0].save(folder / "images" / "a.tif", save_all=True, append_images=pages[1:])
    assert "holds 2 pictures" in reason_of(folder).reason


def test_other_files_are_ignored_with_one_note(folder):
    put(folder)
    (folder / "images" / "notes.txt").write_text("hello")
    (folder / "images" / ".hidden").write_text("")
    save(folder / "masks" / "cat" / "deep" / "a.png", mask_of())
    with pytest.warns(UserWarning, match="2 entries are ignored") as caught:
        scenes = source(folder)
    assert "notes.txt" in str(caught[0].message)
    assert len(scenes) == 1


def test_wrong_addresses(folder, tmp_path):
    put(folder)
    with pytest.raises(SceneError, match="is not a folder; check the path"):
        source(tmp_path / "nowhere")
    with pytest.raises(SceneError, match=r"add masks=NAME to the URI \(folders there: images, masks\)"):
        source(folder, "?masks=labels")
    with pytest.raises(ConfigError, match="unknown key 'colour'"):
        source(folder, "?colour=3")
    with pytest.raises(ConfigError, match="not both"):
        source(folder, "?threshold=3&class=2")
    with pytest.raises(ConfigError, match="two folders"):
        source(folder, "?masks=images")
    with pytest.raises(ConfigError, match="name a folder"):
        FolderSource(parse_uri("folder://"))
    (folder / "empty").mkdir()
    with pytest.raises(SceneError, match="holds no images"):
        source(folder, "?masks=empty")


def test_signature_changes_with_files_and_rule(folder):
    put(folder)
    first = source(folder)
    assert source(folder).signature == first.signature
    assert source(folder, "?threshold=5").signature != first.signature
    save(folder / "masks" / "a.png", mask_of(value=200)[::-1].copy())
    assert source(folder).signature != first.signature


def test_a_bank_leaves_bad_scenes_out_and_names_each(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("PPD_CACHE", str(tmp_path / "cache"))
    for stem in "abcd":
        put(folder, stem)
    (folder / "images" / "b.png").write_bytes(b"")
    save(folder / "masks" / "c.png", mask_of(value=0))
    uri = f"folder://{folder}"
    for _ in range(2):  # built, then from the cache
        with pytest.warns(UserWarning, match="2 of 4 scenes") as caught:
            bank = build_bank(uri, FakeSegmenter(), FakeFeatures(), 4)
        assert "b.png: is an empty file" in str(caught[0].message)
        assert "c.png: is an empty mask" in str(caught[0].message)
        assert bank.names == ["a", "d"]
        assert bank.indices == [0, 3]
        assert [problem.file for problem in bank.problems] == [
            str(folder / "images" / "b.png"),
            str(folder / "masks" / "c.png"),
        ]
        assert bank.raw(1).name == "d"


def test_a_bank_without_any_usable_scene_says_why(folder):
    put(folder, mask=mask_of(value=0))
    with pytest.raises(SceneError, match=r"no scene can be used: .*a\.png: is an empty mask"):
        build_bank(f"folder://{folder}", FakeSegmenter(), FakeFeatures(), 4, cache=False)


def test_read_image_returns_contiguous_writable_rgb(folder):
    put(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(folder / "images" / "a.png")
    assert image.flags.c_contiguous
    assert image.flags.writeable
