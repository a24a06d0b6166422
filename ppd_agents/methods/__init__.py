"""Other methods on the same benchmark: some segment what a reference shows, some learn to defend."""
