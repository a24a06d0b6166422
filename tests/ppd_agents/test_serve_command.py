"""`ppd serve` from the command line: what it prints, refuses and warns of."""

import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ppd_agents import cli
from ppd_agents.serve_command import Serve, address, listening
from ppd_env.errors import PPDError

ROOT = Path(__file__).parents[2]


def test_a_port_in_use_is_a_sentence(capsys):
    with listening("127.0.0.1", 0) as door:
        port = door.getsockname()[1]
        with pytest.raises(SystemExit) as caught:
            cli.main(["serve", "--port", str(port)])
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        f"ppd: Port {port} of 127.0.0.1 is in use: choose another by --port, or 0 for a free one.\n"
    )


@pytest.mark.parametrize(
    ("host", "port", "says"),
    [
        ("127.0.0.1", 70000, r"--port must lie in \[0, 65535\]"),
        ("999.1.2.3", 0, "is not an address to listen on here"),
        ("no such host", 0, "is not an address to listen on here"),
        ("203.0.113.7", 0, r"is not an address to listen on here \(Cannot assign requested address\); try"),
    ],
)
def test_impossible_addresses_are_sentences(host, port, says):
    with pytest.raises(PPDError, match=says):
        listening(host, port)


def test_it_listens_on_this_machine_alone_by_default():
    assert Serve().host == "127.0.0.1"
    with listening(Serve().host, 0) as door:
        assert door.getsockname()[0] == "127.0.0.1"
        assert door.family == socket.AF_INET


def test_addresses_can_be_opened():
    assert address("127.0.0.1", 8000) == "http://127.0.0.1:8000/"
    assert address("0.0.0.0", 80) == "http://127.0.0.1:80/"
    assert address("::1", 80) == "http://[::1]:80/"


@pytest.mark.parametrize("package", ["uvicorn", "starlette"])
def test_missing_packages_are_a_sentence(monkeypatch, package):
    for name in [name for name in sys.modules if name.startswith(("ppd_agents.demo", "starlette"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.types", None)
    with pytest.raises(PPDError, match=r"needs the package '.*': pip install .*\[demo\]"):
        cli.run_serve(Serve(port=0))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--segmenter", "nothing"], "Unknown segmenter 'nothing'"),
        (["--attacker", "nowhere"], "There is no attacker 'nowhere'"),
        (["--defender", "nowhere"], "There is no defender 'nowhere'"),
        (["--scenes", "nothing://"], "Unknown scenes 'nothing://'"),
        (["--megabytes", "0"], "must be larger than 0"),
    ],
)
def test_wrong_options_are_sentences(capsys, options, says):
    pytest.importorskip("uvicorn", reason="the web demo's packages are missing: pip install '.[demo]'")
    with pytest.raises(SystemExit) as caught:
        cli.main(["serve", "--port", "0", *options])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("ppd: ")
    assert says in error
    assert error.count("\n") == 1


def test_it_serves_until_interrupted_and_warns_where_others_can_reach_it():
    pytest.importorskip("uvicorn", reason="the web demo's packages are missing: pip install '.[demo]'")
    from urllib.request import urlopen

    options = ["--port", "0", "--host", "0.0.0.0", "--scenes", "shapes://test?count=1&seed=0"]
    command = [sys.executable, "-m", "ppd_agents", "serve", *options]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    watch = threading.Timer(300, process.kill)
    watch.start()
    try:
        while (line := process.stdout.readline()) and "Open" not in line:
            pass
        place = re.search(r"http://127\.0\.0\.1:\d+/", line).group()
        assert b"<canvas" in urlopen(place).read()
        process.send_signal(signal.SIGINT)
        rest, warned = process.communicate()
    finally:
        watch.cancel()
        process.kill()
    assert process.returncode == 0
    assert "Stopped." in rest
    assert "everybody who can reach 0.0.0.0" in warned
    assert "Traceback" not in warned
