"""Every way a command can fail is one sentence and one of four exit codes."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from ppd_agents import cli
from ppd_agents.failures import guarded, in_a_sentence, refuse_unwritable
from ppd_env.errors import ConfigError, PPDError


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (PPDError("No such thing: make one."), 2, "No such thing: make one."),
        (
            OSError(errno.ENOSPC, "No space left on device", "out.json"),
            2,
            "out.json: No space left on device. The disk",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "x"),
            2,
            "x: Permission denied. Permission is missing",
        ),
        (OSError(errno.EROFS, "Read-only file system", "x"), 2, "read-only"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "x"), 2, "name a file"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x"), 2, "check the name"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 2, "Your share of the disk"),
        (ModuleNotFoundError("No module named 'transformers'", name="transformers"), 2, "defender[sam]"),
        (
            ModuleNotFoundError("No module named 'sb3_contrib.x'", name="sb3_contrib.x"),
            2,
            "pip install sb3_contrib",
        ),
        (MemoryError(), 1, "not enough memory"),
        (
            KeyError("gain"),
            1,
            "Something went wrong that should not: KeyError: 'gain'. This is a fault of the program",
        ),
        (RuntimeError("a\nb"), 1, "RuntimeError: a b."),
    ],
)
def test_errors_are_sentences(capsys, error, code, says):
    assert guarded(raising(error)) == code
    err = capsys.readouterr().err
    assert err.startswith("ppd: ")
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_a_full_disk_behind_another_error_is_found():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as full:
            raise RuntimeError("PytorchStreamWriter failed") from full
    except RuntimeError as error:
        sentence, code = in_a_sentence(error)
    assert code == 2
    assert "The disk is full" in sentence


def test_debug_shows_where_an_error_came_from(capsys):
    for debug in (False, True):
        assert guarded(raising(ConfigError("Wrong.")), debug=debug) == 2
        err = capsys.readouterr().err
        assert ("Traceback" in err) == debug
        assert err.endswith("ppd: Wrong.\n")


def test_debug_is_an_option_of_every_command(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["--debug", "data", "check", "x://"], ["data", "check", "x://", "--debug"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(words)
        assert stopped.value.code == 2
        assert "Traceback" in capsys.readouterr().err


def test_exit_codes_of_commands_and_of_the_parser_pass_through():
    assert guarded(lambda: 1) == 1
    assert guarded(raising(SystemExit(2))) == 2
    assert guarded(raising(SystemExit())) == 0
    assert guarded(raising(SystemExit("no"))) == 2


def test_an_interruption_is_130(capsys):
    assert guarded(raising(KeyboardInterrupt()), hope=lambda: "it goes on") == 130
    assert capsys.readouterr().err == "\nppd: interrupted; it goes on.\n"


START = "import sys, time; from ppd_agents.failures import guarded; sys.exit(guarded(lambda: {}))"
HUGE = START.format("[print('x' * 99) for _ in range(9999)] and 0")


def test_a_reader_that_has_seen_enough_gets_no_traceback():
    process = subprocess.Popen([sys.executable, "-c", HUGE], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


def test_ctrl_c_in_a_real_process():
    code = START.format("print('on', flush=True) or time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.stderr.read() == b"\nppd: interrupted.\n"
    assert process.wait() == 130


def test_a_full_disk_in_a_real_process():
    if not os.path.exists("/dev/full"):
        pytest.skip("/dev/full is Linux's own")
    with open("/dev/full", "w") as full:
        found = subprocess.run([sys.executable, "-c", HUGE], stdout=full, stderr=subprocess.PIPE, text=True)
    assert found.returncode == 2
    assert "The disk is full" in found.stderr
    assert "Traceback" not in found.stderr


def test_names_a_terminal_cannot_show_are_escaped():
    code = START.format("print('\\u2192 \\udcff') or 0")
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (found.returncode, found.stdout) == (0, "\\u2192 \\udcff\n")


def test_result_files_that_cannot_be_written_are_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    refuse_unwritable(None)
    refuse_unwritable(tmp_path / "new" / "deep" / "x.json")
    refuse_unwritable(tmp_path / "file")
    assert not (tmp_path / "new").exists()
    for path, says in (
        (tmp_path, "is a folder: name a file"),
        (tmp_path / "file" / "x.json", "is a file, not a folder"),
    ):
        with pytest.raises(PPDError, match=says):
            refuse_unwritable(path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PPDError, match="permission is missing"):
        refuse_unwritable(tmp_path / "x.json")


def test_without_the_extra_the_command_says_what_to_install():
    code = "import sys; sys.modules['tyro'] = None; from ppd_agents.__main__ import main; main()"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 2
    assert "pip install 'point-prompt-defender[agents]'" in found.stderr
    assert "Traceback" not in found.stderr


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("ppd 0.")


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -F"), ("zsh", "#compdef ppd"), ("fish", "--command 'ppd'")]
)
def test_completion_scripts_know_commands_and_options(capsys, shell, mark):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["completion", shell])
    out = capsys.readouterr().out
    assert stopped.value.code == 0
    assert mark in out
    for word in ("refine", "doctor", "--segmenter", "--skip-damaged"):
        assert word in out or word.lstrip("-") in out


def test_bash_takes_the_script(capsys, tmp_path):
    with pytest.raises(SystemExit):
        cli.main(["completion", "bash"])
    script = tmp_path / "ppd.bash"
    script.write_text(capsys.readouterr().out)
    asked = f"source {script}; COMP_WORDS=(ppd do); COMP_CWORD=1; _tyro_ppd; echo ${{COMPREPLY[@]}}"
    found = subprocess.run(["bash", "-c", asked], capture_output=True, text=True)
    assert found.stdout.split() == ["doctor"]


def test_doctor_says_what_is_there_and_what_to_do(tmp_path, monkeypatch):
    from ppd_agents import doctor

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(doctor, "_LITTLE_DISK", 10**18)
    for name, weights in (
        ("facebook--sam-vit-base", True),
        ("facebook--dinov2-base", False),
        ("me--cats", True),
    ):
        folder = tmp_path / "hub" / f"models--{name}" / "snapshots" / "1"
        folder.mkdir(parents=True)
        if weights:
            (folder / "model.safetensors").write_bytes(b"x")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "sam_vit_b.pth").write_bytes(b"x" * 3_000_000)
    checks = {
        check.name: check
        for check in (
            doctor._hub_models(),
            doctor._checkpoint_files(),
            doctor._cache(),
            doctor._trained(),
            doctor._agents(),
            doctor._devices(),
        )
    }
    assert checks["hub models"].detail == f"facebook/sam-vit-base in {tmp_path / 'hub'}"
    assert checks["checkpoint files"].detail == "checkpoints/sam_vit_b.pth (3 MB)"
    assert "free some space" in checks["cache folder"].next
    assert checks["trained here"].next == "train both agents: `ppd run`"
    assert checks["shipped agents"].detail == "mini (attacker and defender)"
    assert "CPU with" in checks["devices"].detail
    told = doctor.text(list(checks.values()))
    assert told.index("What to do next:") < told.index("  trained here: train both agents")
    assert json.loads(json.dumps(doctor.as_json(list(checks.values()))))["hub models"]["ok"]


def test_doctor_names_what_lies_nowhere(tmp_path, monkeypatch):
    from ppd_agents import doctor

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert "hf download" in doctor._hub_models().next
    broken = doctor._package("stable-baselines3", "stable_baselines3_that_is_not")
    assert not broken.ok
    assert "point-prompt-defender[agents]" in broken.next
    assert doctor._optional("x", "package_that_is_not", "films", "video").ok
