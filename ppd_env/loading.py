"""What a URI names is loaded once per process and device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import torch

from ppd_env.errors import ConfigError
from ppd_env.uris import Uri, parse_uri

T = TypeVar("T")


def as_device(name: torch.device | str) -> torch.device:
    """Return a torch device.

    Raises:
        ConfigError: torch knows no device of that name, or this machine has none.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"The device {str(name)!r} cannot be used: {reason}. Try 'cpu'.") from None
    return device


class Registry(Generic[T]):
    """Loaders by scheme, and what they have loaded.

    Args:
        what: What is loaded, as error messages call it.
        loaders: Scheme -> loader; read at every call, so that users may add to it.
        contract: The protocol of what is loaded; what ``module:callable`` makes is held to it.
    """

    def __init__(
        self, what: str, loaders: Mapping[str, Callable[[Uri, torch.device], T]], contract: Any
    ) -> None:
        self._what, self._loaders, self._contract = what, loaders, contract
        self._loaded: dict[tuple[str, torch.device], T] = {}

    def load(self, uri: str, device: torch.device | str) -> T:
        """Return what a URI names.

        Args:
            uri: Its scheme chooses the loader; ``module:callable`` imports one, which gets the same two
                arguments.
            device: A torch device.

        Returns:
            The same object for the same URI and device.

        Raises:
            ConfigError: The scheme is unknown, its arguments are wrong, nothing can be imported by that name,
                or there is no such device.
        """
        device = as_device(device)
        if (uri, device) not in self._loaded:
            parsed = parse_uri(uri)
            self._loaded[uri, device] = self._load(parsed, device)
        return self._loaded[uri, device]

    def _load(self, uri: Uri, device: torch.device) -> T:
        if uri.scheme in self._loaders:
            return self._loaders[uri.scheme](uri, device)
        if uri.names_callable:
            made: T = uri.make_imported(self._what, self._loaders, self._contract, uri, device)
            return made
        known = ", ".join(sorted(self._loaders))
        raise ConfigError(f"Unknown {self._what} {uri.text!r}; known ones: {known}, module:callable.")
