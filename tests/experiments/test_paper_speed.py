import pytest
import tiny_sam

from experiments.paper_speed import EPISODES, Options, time_schedule
from ppd_env.segmenters.sam import checkpoint


def test_the_whole_schedule_follows_from_some_rounds(tmp_path, monkeypatch):
    monkeypatch.setitem(checkpoint.ARCHITECTURES, "tiny", tiny_sam.TINY)
    options = Options(architecture="tiny", scenes="tiny://", grid=6, games=2, rounds=2, steps=(2, 4))
    result = time_schedule(options, tmp_path)
    assert result["timed_episodes"] == 4
    steps = 2 * 3 * EPISODES / 2
    assert result["hours"] * 3600 == pytest.approx(result["seconds_per_step"] * steps)
    assert result["machine"]["cores"] >= 1
