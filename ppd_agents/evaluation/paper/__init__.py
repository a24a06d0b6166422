"""Tables I and II of the paper, for any segmenter, features, sets of scenes and references."""
