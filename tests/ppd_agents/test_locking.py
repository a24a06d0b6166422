"""Two processes never work in one run's folder."""

import subprocess
import sys

import pytest

from ppd_agents import cli
from ppd_agents.locking import sole_user
from ppd_env.errors import PPDError

_HOLD = """
import sys
from pathlib import Path
from ppd_agents.locking import sole_user
with sole_user(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_a_folder_in_use_is_refused_until_its_user_is_gone(tmp_path, capsys):
    hold = [sys.executable, "-c", _HOLD, str(tmp_path / "busy")]
    with subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(PPDError, match="Another process is at work"), sole_user(tmp_path / "busy"):
            pass
        for command in ("run", "train"):
            with pytest.raises(SystemExit) as left:
                cli.main([command, "--runs", str(tmp_path), "--name", "busy"])
            assert left.value.code == 2
            assert "--name" in capsys.readouterr().err
        other.kill()
    with sole_user(tmp_path / "busy"):
        pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PPDError, match=r"file.*cannot be written to"), sole_user(tmp_path / "file" / "run"):
        pass
