"""Point Prompt Defender: a game of attacking and defending the point prompts of segmentation models.

Importing this package registers ``PPD-v0`` with Gymnasium and ``ppd/ppd-v0`` with PettingZoo. It does not
import torch.
"""

from ppd_env.errors import ConfigError, EpisodeError, PPDError, SceneError
from ppd_env.registration import register

__all__ = ["ConfigError", "EpisodeError", "PPDError", "SceneError", "register"]
__version__ = "0.1.0"

register()
