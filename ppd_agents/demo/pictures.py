"""What the server remembers: pictures under ids that cannot be guessed, for a while."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from ppd_env.errors import PPDError
from ppd_env.features.contract import FeatureExtractor
from ppd_env.scenes.bank import SceneBank
from ppd_env.scenes.encoding import Encoder, Part, Parts
from ppd_env.scenes.scene import RawScene
from ppd_env.segmenters.contract import Segmenter

Known = dict[tuple[str, int], dict[str, Tensor]]
"""What models said about one image, by their signature and the grid (0 for segmenters)."""


class GoneError(PPDError):
    """A picture was asked for that is not, or no longer, here."""


@dataclass(eq=False)
class Picture:
    """An image that somebody works on.

    Args:
        name: What its owner calls it.
        image: (H, W, 3) uint8 RGB.
        file: The file it came in; None where it is an example.
        mask: (H, W) bool, its ground truth, not empty; None where it is not known.
        void: (H, W) bool, pixels that count neither way, or None.
        known: What models said about it.
        bank: The picture as a bank of one scene, once it was attacked.
    """

    name: str
    image: np.ndarray
    file: bytes | None = None
    mask: np.ndarray | None = None
    void: np.ndarray | None = None
    known: Known = field(default_factory=dict)
    bank: SceneBank | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.image.shape[:2]
        return height, width

    def encoder(self, segmenter: Segmenter, features: FeatureExtractor, grid: int) -> Encoder:
        """Return both models as they see this picture; each looks at it once."""
        return _KnownEncoder(segmenter, features, grid, self.known)

    def learn(self, mask: np.ndarray) -> None:
        """Take a ground truth (H, W) bool."""
        self.mask, self.void, self.bank = mask, None, None

    def scene(self) -> RawScene:
        """Return image and ground truth.

        Raises:
            PPDError: The ground truth is not known.
        """
        if self.mask is None:
            raise PPDError(f"{self.name}: its ground truth is not known; add a mask of the object first.")
        return RawScene(self.name, self.image, self.mask, self.name, self.void)

    def weight(self) -> int:
        """Return about how many bytes it holds."""
        tensors = [t.nbytes for found in self.known.values() for t in found.values()]
        arrays = [a.nbytes for a in (self.image, self.mask, self.void) if a is not None]
        return sum(tensors) * (2 if self.bank else 1) + sum(arrays) + len(self.file or b"")


class _KnownEncoder(Encoder):
    """An encoder of one image that remembers what the models said."""

    def __init__(self, segmenter: Segmenter, features: FeatureExtractor, grid: int, known: Known) -> None:
        super().__init__(segmenter, features, grid)
        self._known = known

    def compute(self, image: np.ndarray, wanted: Iterable[Part]) -> Parts:
        """Run the models that have not seen the image yet."""
        keys = {part: self._key(part) for part in wanted}
        missing = [part for part, key in keys.items() if key not in self._known]
        for part, tensors in super().compute(image, missing).items():
            self._known[keys[part]] = tensors
        return {part: self._known[key] for part, key in keys.items()}

    def _key(self, part: Part) -> tuple[str, int]:
        return self.facts.signatures[part], self.grid if part == "features" else 0


class OneScene:
    """A source of one scene that lies in memory.

    Args:
        scene: The scene.
    """

    uri = "picture"
    signature = "picture"

    def __init__(self, scene: RawScene) -> None:
        self._scene = scene

    def __len__(self) -> int:
        """Return 1."""
        return 1

    def __getitem__(self, index: int) -> RawScene:
        """Return the scene."""
        return self._scene


class Shelf:
    """Pictures by id; what nobody asked for in a while goes, and where there are too many, the oldest.

    Args:
        count: Pictures at most.
        megabytes: What they may hold together.
        seconds: How long a picture stays untouched.
        clock: Tells the time in seconds.
    """

    def __init__(
        self,
        count: int = 64,
        megabytes: int = 1000,
        seconds: float = 1800.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count, self._bytes, self._seconds, self._clock = count, megabytes * 10**6, seconds, clock
        self._held: OrderedDict[str, tuple[float, Picture]] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of pictures that are held."""
        return len(self._held)

    def put(self, picture: Picture) -> str:
        """Keep a picture; return its id, which cannot be guessed."""
        number = secrets.token_urlsafe(18)
        self._held[number] = (self._clock(), picture)
        self._tidy()
        return number

    def get(self, number: str) -> Picture:
        """Return a picture, which stays for a further while.

        Raises:
            GoneError: There is none of this id.
        """
        self._tidy()
        if number not in self._held:
            raise GoneError("This picture is no longer held here: load it again.")
        _, picture = self._held.pop(number)
        self._held[number] = (self._clock(), picture)
        return picture

    def drop(self, number: str) -> None:
        """Forget a picture."""
        self._held.pop(number, None)

    def _tidy(self) -> None:
        oldest = self._clock() - self._seconds
        while self._held and next(iter(self._held.values()))[0] < oldest:
            self._held.popitem(last=False)
        while len(self._held) > 1 and (len(self._held) > self._count or self._weight() > self._bytes):
            self._held.popitem(last=False)

    def _weight(self) -> int:
        return sum(picture.weight() for _, picture in self._held.values())
