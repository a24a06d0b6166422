"""Train once undisturbed, and once in processes that are killed without warning until one of them finishes.

    python killed_training.py CONFIG.json FOLDER SEED

leaves FOLDER/whole and FOLDER/killed and prints how many processes of the second one were killed. A script
of its own, so that torch is imported once and nothing but this thread is forked.
"""

import itertools
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from ppd_agents.training.adversarial import Alternation, train_adversarial
from ppd_agents.training.presets import preset

_TOUCHES = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}


def live(config, folder, seconds=None, touches=None):
    """Train in a child, and return (finished, how often it touched checkpoints).

    It dies after so many seconds, or when it touches checkpoints once more than ``touches`` times.
    """
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
    watched, seen = str(folder / "checkpoints"), itertools.count()

    def touch(event, arguments):
        if event in _TOUCHES and str(arguments[0]).startswith(watched):
            if next(seen) == touches:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(writing, b".")

    sys.addaudithook(touch)
    random.seed(0)  # a fork gives Python's generator a new seed
    try:
        train_adversarial(config, folder, resume=True)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(settings, folder, seed):
    config = preset("mini", **json.loads(Path(settings).read_text()))
    rng, folder = np.random.default_rng(int(seed)), Path(folder)
    Alternation(config, folder / "warm")  # the children inherit the scenes
    begun = time.perf_counter()
    _, touched = live(config, folder / "whole")
    seconds, touches = (time.perf_counter() - begun) / config.rounds, touched // config.rounds
    killed = 0
    for _ in range(5):
        # No more than a round's, so that no training is over before it is killed.
        finished, _ = live(config, folder / "killed", touches=int(rng.integers(touches)))
        killed += not finished
    while not finished:
        finished, _ = live(config, folder / "killed", seconds=seconds * rng.uniform(0.5, 4))
        killed += not finished
    print(killed)


if __name__ == "__main__":
    main(*sys.argv[1:])
