"""Which photograph of scikit-image belongs to which side; fixed before any training."""

TEST_PHOTOGRAPHS = ("chelsea", "coins", "rocket", "retina", "camera")
"""Never trained on, not even as a texture or as unsupervised regions."""

TRAIN_PHOTOGRAPHS = (
    "astronaut",
    "coffee",
    "motorcycle_left",
    "motorcycle_right",
    "ihc",
    "cell",
    "moon",
    "clock",
    "hubble_deep_field",
    "microaneurysms",
)
"""Free for training."""
