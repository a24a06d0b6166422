"""Initial prompts: which candidates are active when a game starts."""

from ppd_env.prompting.ideal import LAYOUTS, ideal_prompts
from ppd_env.prompting.matching import matching_prompts, patch_coverage
from ppd_env.prompting.noise import noise_prompts

__all__ = ["LAYOUTS", "ideal_prompts", "matching_prompts", "noise_prompts", "patch_coverage"]
