"""The models, examples and limits that the tests of the web demo share; loaded once."""

from functools import cache

from ppd_agents.defender import Defender
from ppd_agents.demo.examples import open_examples
from ppd_agents.demo.studio import Studio, load_models
from ppd_agents.demo.uploads import Limits
from ppd_agents.shipped import open_agent
from ppd_env.segmenters.registry import load_segmenter

LIMITS = Limits(megabytes=0.3, megapixels=1.0)


@cache
def models():
    return load_models(load_segmenter("mini"), None, Defender.load("mini"), open_agent("mini", "attacker"))


@cache
def examples():
    return open_examples(("shapes://test?count=2&seed=0",))


def studio():
    return Studio(models())
