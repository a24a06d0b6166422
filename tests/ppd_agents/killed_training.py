"""Train once undisturbed, and once in processes that are killed without warning until one of them finishes.

    python killed_training.py CONFIG.json FOLDER SEED

leaves FOLDER/whole and FOLDER/killed and prints how the processes of the second one ended. A script of its
own, so that torch is imported once and nothing but this thread is forked.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from ppd_agents.training.adversarial import train_adversarial
from ppd_agents.training.presets import preset

_WRITING = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def live(config, folder, seconds=None, touches=None):
    """Train in a child; it dies after so many seconds, or when it touches files in ``folder`` once more than
    ``touches`` times. Return (finished, how often it touched files)."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        train_and_leave(config, folder, writing, touches)
    os.close(writing)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        touched = len(pipe.read())
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        sys.exit("the training failed by itself")
    return not os.WIFSIGNALED(status), touched


def train_and_leave(config, folder, writing, touches):
    left = [touches]

    def touch(event, arguments):
        if event in _WRITING and str(folder) in str(arguments[0]):
            os.write(writing, b".")
            if left[0] is not None:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(touch)
    try:
        train_adversarial(config, folder, resume=True)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(settings, folder, seed):
    config = preset("mini", **json.loads(Path(settings).read_text()))
    rng, folder = np.random.default_rng(int(seed)), Path(folder)
    _, touches = live(config, folder / "whole")
    begun = time.perf_counter()
    _, idle = live(config, folder / "whole")
    idle_seconds = time.perf_counter() - begun
    each = (touches - idle) // config.rounds
    ends = {"writing": 0, "any": 0}
    for _ in range(8):
        # A round touches files this often, so that the training is not over before it is killed.
        finished, _ = live(config, folder / "killed", touches=int(rng.integers(idle, idle + each)))
        ends["writing"] += not finished
    for _ in range(30):
        finished, _ = live(config, folder / "killed", seconds=idle_seconds * rng.uniform(0.2, 2.5))
        if finished:
            break
        ends["any"] += 1
    else:
        live(config, folder / "killed")
    print(json.dumps(ends | {"idle": idle, "each": each, "idle_seconds": idle_seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
