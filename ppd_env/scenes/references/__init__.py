"""Which image is the one-shot reference of a set, by a published rule; lists for known sets lie beside it."""

from ppd_env.scenes.references.choosing import (
    LEAST_SHARE,
    VERSION,
    Reference,
    references,
    targets,
)
from ppd_env.scenes.references.lists import PublishedList, published_lists

__all__ = [
    "LEAST_SHARE",
    "VERSION",
    "PublishedList",
    "Reference",
    "published_lists",
    "references",
    "targets",
]
