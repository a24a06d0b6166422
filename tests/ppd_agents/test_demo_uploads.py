"""Files that strangers send to the web demo: every bad one is refused in words, none by a crash."""

import io
import struct
import tempfile
import zlib

import numpy as np
import pytest
from demo_models import LIMITS
from PIL import Image

from ppd_agents.demo.uploads import TooLargeError, image_of, mask_of
from ppd_env.errors import PPDError
from ppd_env.scenes.reading import MAX_SIDE


def stored(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def noise(width=40, height=30, mode="RGB"):
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).convert(mode)


def png_of_size(width, height):
    """A PNG whose header promises so many pixels, and whose data holds none."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def frames():
    return stored(noise(), "GIF", save_all=True, append_images=[noise().rotate(90)])


def deep():
    return stored(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty file"),
        (b"hello, I am no picture", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n", "not an image"),
        (stored(noise())[:400], "cut short"),
        (stored(noise(), "JPEG")[:300], "cut short|not an image"),
        (stored(noise(1, 1)), "1 x 1 pixels"),
        (stored(noise(300, 4)), "300 x 4 pixels"),
        (frames(), "holds 2 pictures"),
        (deep(), "8 bits per channel"),
        (png_of_size(40, 30), "cut short|damaged"),
    ],
)
def test_what_is_no_image_is_refused_in_words(content, says):
    with pytest.raises(PPDError, match=says) as caught:
        image_of(content, "mine.png", LIMITS)
    assert str(caught.value).startswith("mine.png: ")
    assert tempfile.gettempdir() not in str(caught.value)
    assert "upload-" not in str(caught.value)


@pytest.mark.parametrize("size", [(20_000, 20_000), (20_000, 60), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_before_decoding(size):
    with pytest.raises(TooLargeError, match="pixels"):
        image_of(png_of_size(*size), "vast.png", LIMITS)


def test_too_many_bytes_are_refused():
    with pytest.raises(TooLargeError, match=r"long\.png: is larger than 0\.3 MB"):
        image_of(bytes(300_001), "long.png", LIMITS)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK"])
def test_images_of_eight_bits_are_taken_whatever_their_colours(mode):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    image = image_of(stored(noise(mode=mode), kind), "mine", LIMITS)
    assert image.shape == (30, 40, 3)
    assert image.dtype == np.uint8


def test_images_come_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = Image.new("RGB", (40, 30))
    sideways.paste((250, 0, 0), (0, 0, 16, 30))
    image = image_of(stored(sideways, "JPEG", exif=exif), "turned.jpg", LIMITS)
    assert image.shape == (40, 30, 3)
    assert image[:14, :, 0].min() > 200  # what lay left is above
    assert image[18:].max() < 50


def test_long_images_are_scaled_down():
    image = image_of(stored(Image.new("RGB", (8192, 64))), "long.png", LIMITS)
    assert image.shape == (32, MAX_SIDE, 3)


def test_masks_follow_their_image():
    mask = Image.new("L", (40, 30))
    mask.paste(255, (10, 5, 20, 15))
    found = mask_of(stored(mask), "mask.png", stored(noise()), LIMITS)
    assert found.shape == (30, 40)
    assert found[5:15, 10:20].all()
    assert found.sum() == 100
    assert (mask_of(stored(mask), "mask.png", np.asarray(noise()), LIMITS) == found).all()


def test_masks_of_many_values_are_read_by_their_brightness():
    mask = Image.new("L", (40, 30), 10)
    mask.paste(240, (10, 5, 20, 15))
    blurred = mask.resize((40, 30), Image.Resampling.BICUBIC, box=(0.5, 0.5, 39.5, 29.5))
    found = mask_of(stored(blurred, "JPEG"), "mask.jpg", stored(noise()), LIMITS)
    assert found[8:12, 13:17].all()
    assert 60 < found.sum() < 140


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (
            stored(Image.new("L", (41, 30), 255)),
            r"mask\.png: is 41 x 30 pixels, its image \(the picture\) is 40 x 30",
        ),
        (stored(Image.new("L", (40, 30))), r"mask\.png: is an empty mask"),
        (b"nothing", r"mask\.png: is not an image"),
    ],
)
def test_bad_masks_are_refused_in_words(mask, says):
    with pytest.raises(PPDError, match=says):
        mask_of(mask, "mask.png", stored(noise()), LIMITS)
