"""Initial prompts of games, and prompts for a target image from reference images with their masks."""

from ppd_env.prompting.bidirectional import bidirectional_prompts
from ppd_env.prompting.corruption import CORRUPTIONS, corrupt
from ppd_env.prompting.coverage import patch_coverage
from ppd_env.prompting.gbmseg import gbmseg_prompts
from ppd_env.prompting.ideal import LAYOUTS, ideal_prompts
from ppd_env.prompting.likeness import persam_prompts
from ppd_env.prompting.matching import feature_matching, matching_prompts
from ppd_env.prompting.noise import noise_prompts
from ppd_env.prompting.pair import Prompter, Reference, References, Target, as_points
from ppd_env.prompting.prompters import PROMPTERS, load_prompter

__all__ = [
    "CORRUPTIONS",
    "LAYOUTS",
    "PROMPTERS",
    "Prompter",
    "Reference",
    "References",
    "Target",
    "as_points",
    "bidirectional_prompts",
    "corrupt",
    "feature_matching",
    "gbmseg_prompts",
    "ideal_prompts",
    "load_prompter",
    "matching_prompts",
    "noise_prompts",
    "patch_coverage",
    "persam_prompts",
]
