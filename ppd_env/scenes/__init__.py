"""Images with ground truth: sources by URI, and the bank that holds them ready for games."""
