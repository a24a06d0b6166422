import json

import pytest
import tiny_sam

from experiments.paper_speed import EPISODES, Options, time_schedule
from ppd_env.segmenters.sam import checkpoint


def test_the_whole_schedule_follows_from_some_rounds(tmp_path, monkeypatch):
    monkeypatch.setitem(checkpoint.ARCHITECTURES, "tiny", tiny_sam.TINY)
    more = {"gradient_steps": 2, "batch_size": 8, "decoder": "keep=1"}
    written = tmp_path / "speed.json"
    tiny = {"architecture": "tiny", "scenes": "tiny://", "grid": 6, "games": 2, "rounds": 2, "steps": (2, 4)}
    result = time_schedule(Options(**tiny, **more, json=written), tmp_path)
    assert result["timed_episodes"] == 4
    steps = 2 * 3 * EPISODES / 2
    assert result["hours"] * 3600 == pytest.approx(result["seconds_per_step"] * steps)
    assert result["machine"]["cores"] >= 1
    assert json.loads(written.read_text())["timed_lengths"] == result["timed_lengths"]
    trained = json.loads((tmp_path / "training" / "attacker" / "agent.json").read_text())["notes"]["config"]
    assert (trained["gradient_steps"], trained["batch_size"]) == (2, 8)
    assert trained["segmenter"].endswith("?keep=1")
