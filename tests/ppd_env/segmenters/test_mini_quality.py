"""The shipped weights reach the numbers that are recorded for them."""

import json
import os
from pathlib import Path

import pytest

from experiments.train_mini.evaluate import Measurement, measure

RECORDED = Path(__file__).parents[3] / "experiments" / "results" / "mini.json"


@pytest.mark.slow
def test_mini_is_as_good_as_recorded():
    recorded = json.loads(RECORDED.read_text())
    found = measure(Measurement(seed=recorded["seed"], data=os.environ.get("PPD_DATA", "")))
    assert {"shapes.iou_after_1", "shapes.dice_jittered", "photos_test.dice_jittered"} <= found.keys()
    for name, value in found.items():
        assert value == pytest.approx(recorded["results"][name], abs=0.01), name
