"""The shipped weights reach the numbers that are recorded for them."""

import json
import os
from pathlib import Path

import pytest

from experiments.train_mini.evaluate import Measurement, ideal_dice, measure
from ppd_env.segmenters.registry import load_segmenter

BARS = {
    "shapes.iou_after_1": 0.62,
    "shapes.iou_after_5": 0.78,
    "shapes.iou_correlation": 0.6,
    "shapes.dice_jittered": 0.86,
    "photos_test.dice_jittered": 0.75,
    "real.dice_jittered": 0.77,
}
RECORDED = Path(__file__).parents[3] / "experiments" / "results" / "mini.json"


def test_the_record_belongs_to_the_shipped_weights_and_meets_the_bars():
    recorded = json.loads(RECORDED.read_text())
    assert recorded["segmenter"] == load_segmenter("mini").signature
    for name, least in BARS.items():
        assert recorded["results"][name] >= least, name


def test_a_part_of_the_shapes_scenes_is_segmented_as_well():
    scenes = "shapes://test?count=40&seed=0"
    assert ideal_dice(scenes, load_segmenter("mini"), draws=1, seed=0) > 0.84


@pytest.mark.slow
def test_mini_is_as_good_as_recorded():
    recorded = json.loads(RECORDED.read_text())
    found = measure(Measurement(seed=recorded["seeds"][0], data=os.environ.get("PPD_DATA", "")))
    assert {"shapes.iou_after_1", "shapes.dice_jittered", "photos_test.dice_jittered"} <= found.keys()
    for name, value in found.items():
        assert value == pytest.approx(recorded["results"][name], abs=0.01), name
