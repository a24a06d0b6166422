"""Patch-feature extractors, by URI."""
