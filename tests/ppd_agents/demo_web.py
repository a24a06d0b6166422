"""What the tests of the web demo's server share; importing it skips them where its packages are missing."""

import pytest
from demo_models import LIMITS, examples, studio

NEEDED = "the web demo's packages are missing: pip install '.[demo,dev]'"

pytest.importorskip("starlette", reason=NEEDED)
uvicorn = pytest.importorskip("uvicorn", reason=NEEDED)
httpx = pytest.importorskip("httpx", reason=NEEDED)


def server(**shelf):
    """A server of two examples whose pictures lie on a shelf of these settings."""
    from ppd_agents.demo.pictures import Shelf
    from ppd_agents.demo.server import Server

    return Server(studio(), examples(), LIMITS, Shelf(**shelf))
