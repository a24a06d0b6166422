"""The embedded segmenter ``mini``."""

from ppd_env.segmenters.mini.config import MiniConfig
from ppd_env.segmenters.mini.segmenter import MiniSegmenter, load_mini

__all__ = ["MiniConfig", "MiniSegmenter", "load_mini"]
