"""Published SAM models: image encoders of their own packages, one mask decoder of ours for all of them."""
