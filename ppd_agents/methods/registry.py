"""One-shot methods by name: the rows of PPD's Table II that can be run.

VRP-SAM is not among them: it prompts with trained embeddings instead of points, and its weights were not
released.
"""

from __future__ import annotations

from collections.abc import Callable

from ppd_agents.methods.contract import OneShotMethod
from ppd_agents.methods.matcher import Matcher
from ppd_agents.methods.persam import PerSam
from ppd_agents.methods.persam_f import STEPS, PerSamF
from ppd_agents.methods.predecessor import Predecessor
from ppd_agents.methods.prompted import Defended, Prompted
from ppd_agents.shipped import open_agent
from ppd_env.errors import ConfigError
from ppd_env.features.contract import FeatureExtractor
from ppd_env.segmenters.contract import Segmenter
from ppd_env.uris import Uri, parse_uri

Builder = Callable[[Uri, Segmenter, FeatureExtractor], OneShotMethod]
"""(URI, segmenter, extractor of the features that targets come with) -> method."""


def _prompted(uri: Uri, segmenter: Segmenter, features: FeatureExtractor) -> OneShotMethod:
    uri.require_bare()
    return Prompted(segmenter, uri.scheme, uri.text)


def _persam(uri: Uri, segmenter: Segmenter, features: FeatureExtractor) -> OneShotMethod:
    uri.require_bare()
    return PerSam(segmenter)


def _persam_f(uri: Uri, segmenter: Segmenter, features: FeatureExtractor) -> OneShotMethod:
    uri.require_keys(("steps",))
    return PerSamF(segmenter, uri.integer("steps", STEPS), uri.text)


def _matcher(uri: Uri, segmenter: Segmenter, features: FeatureExtractor) -> OneShotMethod:
    uri.require_bare()
    return Matcher(segmenter)


def _ppo(uri: Uri, segmenter: Segmenter, features: FeatureExtractor) -> OneShotMethod:
    uri.require_keys(("agent", "policy"))
    if len(uri.query) > 1:
        raise ConfigError(f"{uri.text!r}: give a trained agent or a policy, not both.")
    if "agent" not in uri.query:
        return Predecessor(segmenter, uri.query.get("policy", "greedy"), uri.text)
    agent = open_agent(uri.query["agent"], "defender", features.device)
    return Defended(segmenter, features, "matching", agent, uri.text)


def _ours(uri: Uri, segmenter: Segmenter, features: FeatureExtractor) -> OneShotMethod:
    uri.require_keys(("agent", "prompts"))
    agent = open_agent(uri.query.get("agent", "mini"), "defender", features.device)
    return Defended(segmenter, features, uri.query.get("prompts", "matching"), agent.for_matched(), uri.text)


METHODS: dict[str, Builder] = {
    "gbmseg": _prompted,
    "matcher": _matcher,
    "matching": _prompted,
    "ours": _ours,
    "persam": _persam,
    "persam_f": _persam_f,
    "ppo": _ppo,
}
"""Name -> builder; add to it to compare a method of your own."""


def open_method(uri: str, segmenter: Segmenter, features: FeatureExtractor) -> OneShotMethod:
    """Return a one-shot method.

    Args:
        uri: ``"matching"``, ``"gbmseg"``, ``"persam"``, ``"persam_f?steps=1000"``, ``"matcher"``,
            ``"ppo"``, ``"ppo?policy=random"``, ``"ppo?agent=FOLDER"``, ``"ours"``, or
            ``"ours?agent=NAME_OR_FOLDER&prompts=PROMPTER"``.
        segmenter: Embeds and decodes.
        features: Describes the patches of references and targets.

    Returns:
        The method, for as many references and targets as come.

    Raises:
        PPDError: There is no such method, agent or prompter, or an argument is wrong.
    """
    parsed = parse_uri(uri)
    if parsed.scheme.partition("?")[0] not in METHODS or parsed.path:
        raise ConfigError(f"Unknown one-shot method {uri!r}; known ones: {', '.join(sorted(METHODS))}.")
    return METHODS[parsed.scheme](parsed, segmenter, features)
