"""URIs name scenes, segmenters, features and opponents: ``scheme://path?key=value`` or ``scheme:rest``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from ppd_env.errors import ConfigError


@dataclass(frozen=True)
class Uri:
    """A parsed URI.

    Args:
        text: The URI as it was given.
        scheme: What stands before the first ``:``; the whole text if there is none.
        path: What stands between the scheme and ``?``, without a leading ``//``.
        query: The ``key=value`` pairs after ``?``.
    """

    text: str
    scheme: str
    path: str = ""
    query: Mapping[str, str] = field(default_factory=dict)

    def require_keys(self, known: Iterable[str]) -> None:
        """Raise ``ConfigError`` if the query holds a key outside ``known``."""
        known = sorted(known)
        for key in self.query:
            if key not in known:
                allowed = ", ".join(known) or "none"
                raise ConfigError(f"{self.text!r}: unknown key {key!r}; known keys: {allowed}.")

    def require_bare(self) -> None:
        """Raise ``ConfigError`` if there is anything but the scheme."""
        if self.text != self.scheme:
            raise ConfigError(f"{self.text!r}: {self.scheme!r} takes nothing after its name.")

    def integer(self, key: str, default: int) -> int:
        """Return ``query[key]`` as an int, or ``default`` where it is absent.

        Raises:
            ConfigError: The value is not an integer.
        """
        value = self.query.get(key)
        if value is None:
            return default
        try:
            return int(value)
        except ValueError:
            raise ConfigError(f"{self.text!r}: {key} must be an integer, got {value!r}.") from None

    @property
    def names_callable(self) -> bool:
        """Whether the URI reads ``module:callable``, with or without a query."""
        parts = [*self.scheme.split("."), self.path]
        return "://" not in self.text.partition("?")[0] and all(part.isidentifier() for part in parts)

    def import_callable(self, what: str, known: Iterable[str]) -> Callable[..., Any]:
        """Import what ``module:callable`` names.

        Args:
            what: What it makes, as error messages call it.
            known: What could have been meant instead.

        Returns:
            The callable.

        Raises:
            ConfigError: There is no such module, or nothing of that name in it.
        """
        try:
            found: Callable[..., Any] = getattr(importlib.import_module(self.scheme), self.path)
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"{what.capitalize()} {self.text!r} cannot be imported: {error}. Known without an import: "
                f"{', '.join(sorted(known))}."
            ) from error
        return found

    def make_imported(self, what: str, known: Iterable[str], contract: Any, *arguments: Any) -> Any:
        """Call what ``module:callable`` names.

        Args:
            what: What it makes, as error messages call it.
            known: What could have been meant instead.
            contract: The protocol that what is made must fulfil.
            arguments: Handed to the callable.

        Returns:
            What the callable made.

        Raises:
            ConfigError: It cannot be imported, or what it makes is something else.
        """
        made = self.import_callable(what, known)(*arguments)
        if not isinstance(made, contract):
            raise ConfigError(
                f"{what.capitalize()} {self.text!r}: {type(made).__name__} does not have all that "
                f"{contract.__module__}.{contract.__name__} asks for."
            )
        return made


def parse_uri(text: str) -> Uri:
    """Parse ``text``.

    Args:
        text: For example ``"shapes://train?count=1000&seed=0"``, or ``"sam:facebook/sam-vit-base"``.

    Returns:
        The parts of the URI; the query is empty if there is none.

    Raises:
        ConfigError: The text is empty or its query is malformed.
    """
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"Expected a URI such as 'shapes://train', got {text!r}.")
    head, _, query = text.partition("?")
    scheme, _, path = head.partition(":")
    try:
        # A plus sign is itself here, as in the names of folders, and no space.
        pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ConfigError(f"{text!r}: the part after '?' must be key=value pairs joined by '&'.") from None
    return Uri(text=text, scheme=scheme, path=path.removeprefix("//"), query=dict(pairs))
