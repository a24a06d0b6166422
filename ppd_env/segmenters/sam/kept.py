"""What a decoder computed of scenes, kept for the next step: scene by scene, or all of them in a table."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor

Constants = dict[str, Tensor]

_AT_ONCE = 16
"""Scenes whose constants are computed together when a table is built."""


class KeptScenes:
    """Constants of the scenes used last, up to so many bytes.

    A scene is known by the tensor that holds its embedding, which must not be written into, and its row.
    Scenes of one call never drive each other out: where they are too many, the last ones are not kept, so
    that the others are found again in the next step.

    Args:
        capacity: In bytes.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held = 0
        """Bytes held now."""
        self._lock = threading.Lock()
        self._calls = 0
        self._found: OrderedDict[tuple[int, int], _Entry] = OrderedDict()

    def scope(self, images: Tensor) -> Scope:
        """Begin a call that looks up rows of one embedding.

        Args:
            images: Embedding of S images, the same object in every call.
        """
        with self._lock:
            self._calls += 1
            for key in [key for key, entry in self._found.items() if entry.images() is None]:
                self._drop(key)
            return Scope(self, images, self._calls)

    def _get(self, key: tuple[int, int], call: int) -> Constants | None:
        with self._lock:
            entry = self._found.get(key)
            if entry is None:
                return None
            entry.call = call
            self._found.move_to_end(key)
            return entry.constants

    def _put(self, key: tuple[int, int], entry: _Entry) -> None:
        with self._lock:
            if key in self._found:  # another thread was faster
                return
            while self.held + entry.bytes > self.capacity:
                oldest = next(iter(self._found.items()), None)
                if oldest is None or oldest[1].call == entry.call:
                    return
                self._drop(oldest[0])
            self._found[key] = entry
            self.held += entry.bytes

    def _drop(self, key: tuple[int, int]) -> None:
        self.held -= self._found.pop(key).bytes


class _Entry:
    """The constants of one scene, and when they were used last."""

    def __init__(self, images: Tensor, constants: Constants, call: int) -> None:
        self.images, self.constants, self.call = weakref.ref(images), constants, call
        self.bytes = sum(tensor.nbytes for tensor in constants.values())


class Scope:
    """One call's view of ``KeptScenes``.

    Args:
        kept: Where constants are looked up.
        images: The embedding.
        call: The call's number.
    """

    def __init__(self, kept: KeptScenes, images: Tensor, call: int) -> None:
        self._kept, self._images, self._call = kept, images, call

    def get(self, row: int, compute: Callable[[], Constants]) -> Constants:
        """Return the constants of a row, computed where they are not held; safe to call from any thread."""
        key = (id(self._images), row)
        constants = self._kept._get(key, self._call)
        if constants is None:
            constants = compute()
            self._kept._put(key, _Entry(self._images, constants, self._call))
        return constants


class SceneTable:
    """Constants of all scenes of the embedding used last, where they fit into so many bytes.

    For a GPU, which gathers a batch out of one tensor several times as fast as it computes it. The table goes
    with the embedding.

    Args:
        capacity: In bytes.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._lock = threading.Lock()
        self._kept: tuple[weakref.ref[Tensor], Constants | None] | None = None

    def gather(self, images: Tensor, rows: Tensor, compute: Callable[[slice], Constants]) -> Constants | None:
        """Return the constants of some scenes; safe to call from any thread.

        Args:
            images: Embedding of S images, the same object in every call, which must not be written into.
            rows: (B,) int64.
            compute: Returns the constants of a range of the S scenes.

        Returns:
            Leading axis B; None where those of all S scenes do not fit.
        """
        with self._lock:
            kept = self._kept
            if kept is None or kept[0]() is not images:
                self._kept = None  # makes room before the next one is built
                kept = self._kept = weakref.ref(images, self._forget), self._build(len(images), compute)
        table = kept[1]
        return None if table is None else {name: tensor[rows] for name, tensor in table.items()}

    def _forget(self, gone: weakref.ref[Tensor]) -> None:
        kept = self._kept
        if kept is not None and kept[0] is gone:
            self._kept = None

    def _build(self, count: int, compute: Callable[[slice], Constants]) -> Constants | None:
        first = compute(slice(0, 1))
        if count * sum(tensor.nbytes for tensor in first.values()) > self.capacity:
            return None
        if count == 1:
            return first
        table = {name: tensor.new_empty(count, *tensor.shape[1:]) for name, tensor in first.items()}
        for start in range(0, count, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            for name, tensor in compute(part).items():
                table[name][part] = tensor
        return table
