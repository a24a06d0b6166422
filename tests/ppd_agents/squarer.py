"""What the workers of the Ray tests hold; imports nothing heavy, so that they start fast."""

import os

from ppd_env.errors import ConfigError, SceneError


class Squarer:
    """What the workers hold: squares, and says who it is."""

    def __init__(self, broken=False):
        if broken:
            raise ConfigError("no weights here")
        self.done = 0

    def square(self, number):
        self.done += 1
        if number == 13:
            raise SceneError("thirteen.png", "is unlucky")
        return number**2, os.getpid()

    def die(self):
        os._exit(1)

    def count(self):
        return self.done
