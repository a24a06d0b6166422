"""Small data sets in the layouts their publishers chose, made of made-up pictures."""

import json

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 24, 36
VOC_PALETTE = [value * 37 % 256 for value in range(768)]


def picture(number=0, height=HEIGHT, width=WIDTH):
    rng = np.random.default_rng(number)
    return rng.integers(0, 255, (height, width, 3), np.uint8)


def box(number=0, height=HEIGHT, width=WIDTH):
    """A mask (H, W) bool whose place depends on ``number``."""
    mask = np.zeros((height, width), bool)
    top, left = 2 + number % 7, 3 + number % 11
    mask[top : top + 12, left : left + 16] = True
    return mask


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def grey(mask):
    return mask.astype(np.uint8) * 255


def fss1000(root, classes=("apple", "pear", "whale"), images=10):
    """FSS-1000: masks are colour PNG files, as most of the published ones."""
    for place, category in enumerate(classes):
        for number in range(1, images + 1):
            save(root / "fewshot_data" / category / f"{number}.jpg", picture(10 * place + number))
            mask = np.repeat(grey(box(10 * place + number))[..., None], 3, axis=2)
            save(root / "fewshot_data" / category / f"{number}.png", mask)
    return root


ISIC = {
    ("2016", "train"): ("ISBI2016_ISIC_Part1_Training_Data", "ISBI2016_ISIC_Part1_Training_GroundTruth"),
    ("2016", "test"): ("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth"),
    ("2017", "train"): ("ISIC-2017_Training_Data", "ISIC-2017_Training_Part1_GroundTruth"),
    ("2017", "val"): ("ISIC-2017_Validation_Data", "ISIC-2017_Validation_Part1_GroundTruth"),
    ("2017", "test"): ("ISIC-2017_Test_v2_Data", "ISIC-2017_Test_v2_Part1_GroundTruth"),
    ("2018", "train"): ("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth"),
    ("2018", "val"): ("ISIC2018_Task1-2_Validation_Input", "ISIC2018_Task1_Validation_GroundTruth"),
    ("2018", "test"): ("ISIC2018_Task1-2_Test_Input", "ISIC2018_Task1_Test_GroundTruth"),
}


def isic(root, year="2018", split="test", images=6):
    inputs, truths = ISIC[year, split]
    for number in range(images):
        name = f"ISIC_{number:07d}"
        save(root / inputs / f"{name}.jpg", picture(number))
        ending = "_Segmentation" if year == "2016" else "_segmentation"
        save(root / truths / f"{name}{ending}.png", grey(box(number)))
        if year == "2017":
            save(root / inputs / f"{name}_superpixels.png", picture(number, 4, 4))
    for folder in (inputs, truths):
        (root / folder / "LICENSE.txt").write_text("CC0")
    return root


def kvasir(root, images=25):
    boxes = {}
    for number in range(images):
        name = f"cju{number:022d}"
        save(root / "Kvasir-SEG" / "images" / f"{name}.jpg", picture(number))
        mask = np.repeat(grey(box(number))[..., None], 3, axis=2)
        save(root / "Kvasir-SEG" / "masks" / f"{name}.jpg", mask, quality=75)
        boxes[name] = {"height": HEIGHT, "width": WIDTH, "bbox": []}
    (root / "Kvasir-SEG" / "kavsir_bboxes.json").write_text(json.dumps(boxes))
    return root


def voc_mask(values):
    """A palette PNG (H, W) uint8, as PASCAL VOC's."""
    image = Image.frombytes("P", values.shape[::-1], np.ascontiguousarray(values).tobytes())
    image.putpalette(VOC_PALETTE)
    return image


def voc(root, masks, year="2012", split="val"):
    """PASCAL VOC: ``masks`` maps stems to (H, W) uint8 values."""
    base = root / "VOCdevkit" / f"VOC{year}"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    for number, (stem, values) in enumerate(masks.items()):
        save(base / "JPEGImages" / f"{stem}.jpg", picture(number, *values.shape))
        voc_mask(values).save(base / "SegmentationClass" / f"{stem}.png")
    (base / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in masks))
    return root


def voc_values(*parts, void=None):
    """Values of a VOC mask: boxes of (class, left, right), void elsewhere where told."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    for category, left, right in parts:
        values[4:20, left:right] = category
    if void is not None:
        values[:, void[0] : void[1]] = 255
    return values


def coco(
    root, annotations, images=("000000000001", "000000000002"), categories=("cat", "dog"), name="val2017"
):
    """COCO: ``annotations`` are dictionaries; ids, category ids and crowd flags may be left out."""
    described = []
    for number, stem in enumerate(images, start=1):
        save(root / name / f"{stem}.jpg", picture(number))
        described.append({"id": number, "file_name": f"{stem}.jpg", "height": HEIGHT, "width": WIDTH})
    listed = [
        {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, **annotation}
        for number, annotation in enumerate(annotations, start=1)
    ]
    named = [{"id": number, "name": category} for number, category in enumerate(categories, start=1)]
    path = root / "annotations" / f"instances_{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": described, "annotations": listed, "categories": named}))
    return root


def rectangle(left, top, right, bottom):
    """The polygon of a rectangle of pixels, as COCO writes it."""
    return [[left, top, right, top, right, bottom, left, bottom]]
