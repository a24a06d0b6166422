"""The command that compares both resolutions of Dice."""

import json

from experiments.dice_resolution import main


def test_both_resolutions_are_close_but_not_the_same(tmp_path, capsys):
    target = tmp_path / "found.json"
    main(["--scenes", "tiny://x", "--grid", "6", "--json", str(target)])
    found = json.loads(target.read_text())["tiny://x"]
    assert "tiny://x" in capsys.readouterr().out
    assert found["low"] > 50
    assert 0 < found["difference"] <= found["largest"] < 15
    assert found["difference"] >= abs(found["low"] - found["native"])
    assert list(tmp_path.iterdir()) == [target]
