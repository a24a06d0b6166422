"""Procedural scenes: textured objects, look-alikes, occlusion, holes and several parts."""

from ppd_env.scenes.shapes.config import GENERATOR_VERSION, ShapesConfig
from ppd_env.scenes.shapes.generator import LabelledImage, draw_scene
from ppd_env.scenes.shapes.source import ShapesSource

__all__ = ["GENERATOR_VERSION", "LabelledImage", "ShapesConfig", "ShapesSource", "draw_scene"]
