"""Errors a user can act on: every message names the value or file, the reason and the remedy."""


class PPDError(ValueError):
    """Base class of every error this project raises on purpose."""


class ConfigError(PPDError):
    """An argument, URI or configuration key is unknown or has an impossible value."""


class SceneError(PPDError):
    """One scene cannot be used.

    Args:
        file: Path or name of the image or mask at fault.
        reason: What is wrong with it, and what to do about it, as one sentence.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, reason)
        self.file = file
        self.reason = reason

    def __str__(self) -> str:
        """Return ``file: reason``."""
        return f"{self.file}: {self.reason}"


class EpisodeError(PPDError):
    """A recorded episode is not what it claims to be, or cannot be replayed here."""
