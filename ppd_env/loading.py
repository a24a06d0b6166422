"""What a URI names is loaded once per process and device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import torch

from ppd_env.errors import ConfigError
from ppd_env.uris import Uri, parse_uri

T = TypeVar("T")


class Registry(Generic[T]):
    """Loaders by scheme, and what they have loaded.

    Args:
        what: What is loaded, as error messages call it.
        loaders: Scheme -> loader; read at every call, so that users may add to it.
    """

    def __init__(self, what: str, loaders: Mapping[str, Callable[[Uri, torch.device], T]]) -> None:
        self._what, self._loaders = what, loaders
        self._loaded: dict[tuple[str, torch.device], T] = {}

    def load(self, uri: str, device: torch.device | str) -> T:
        """Return what a URI names.

        Args:
            uri: Its scheme chooses the loader.
            device: A torch device.

        Returns:
            The same object for the same URI and device.

        Raises:
            ConfigError: The scheme is unknown or its arguments are wrong.
        """
        device = torch.device(device)
        if (uri, device) not in self._loaded:
            parsed = parse_uri(uri)
            if parsed.scheme not in self._loaders:
                known = ", ".join(sorted(self._loaders))
                raise ConfigError(f"Unknown {self._what} {uri!r}; known ones: {known}.")
            self._loaded[uri, device] = self._loaders[parsed.scheme](parsed, device)
        return self._loaded[uri, device]
