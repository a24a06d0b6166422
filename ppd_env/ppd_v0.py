"""The PettingZoo environments: ``ppd_v0.env()``, ``ppd_v0.raw_env()`` and ``ppd_v0.parallel_env()``."""

from __future__ import annotations

from typing import Any

from pettingzoo import AECEnv
from pettingzoo.utils import wrappers

from ppd_env.envs.aec import PointPromptAEC
from ppd_env.envs.parallel import PointPromptParallel

__all__ = ["env", "parallel_env", "raw_env"]

raw_env = PointPromptAEC
parallel_env = PointPromptParallel


def env(**kwargs: Any) -> AECEnv:
    """Return the AEC environment, phased unless ``schedule="duel"``, with PettingZoo's usual wrappers.

    Args:
        kwargs: See ``PointPromptAEC``.
    """
    wrapped: AECEnv = wrappers.OrderEnforcingWrapper(wrappers.AssertOutOfBoundsWrapper(raw_env(**kwargs)))
    return wrapped
