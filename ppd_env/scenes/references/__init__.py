"""Which image is the one-shot reference of a set, by a published rule; lists for known sets lie beside it."""

from ppd_env.scenes.references.choosing import (
    LEAST_SHARE,
    VERSION,
    Reference,
    published_candidates,
    references,
    targets,
)

__all__ = ["LEAST_SHARE", "VERSION", "Reference", "published_candidates", "references", "targets"]
