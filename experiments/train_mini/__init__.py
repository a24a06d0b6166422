"""Training of the embedded segmenter ``mini``."""
