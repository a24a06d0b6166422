"""Names under which Gymnasium and PettingZoo know the environments. Importing this module loads no torch."""

from __future__ import annotations

import importlib.util

import gymnasium

GYMNASIUM_ID = "PPD-v0"
PETTINGZOO_ID = "ppd/ppd-v0"


def register() -> None:
    """Register the environments with Gymnasium and, where it keeps a registry, PettingZoo; safe to repeat."""
    if GYMNASIUM_ID not in gymnasium.registry:
        gymnasium.register(
            GYMNASIUM_ID,
            entry_point="ppd_env.envs.gymnasium_env:PointPromptEnv",
            vector_entry_point="ppd_env.envs.vector_env:PointPromptVectorEnv",
        )
    _register_pettingzoo()


def _register_pettingzoo() -> None:
    # PettingZoo keeps a registry of its own since 1.27.
    if importlib.util.find_spec("pettingzoo.env_registry") is None:
        return
    from pettingzoo.env_registry import registration

    known = {"aec": registration.aec_registry, "parallel": registration.parallel_registry}
    for kind, entry in (("aec", "env"), ("parallel", "parallel_env")):
        if PETTINGZOO_ID not in known[kind]:
            registration.register(kind, PETTINGZOO_ID, entry_point=f"ppd_env.ppd_v0:{entry}")
