"""Rollouts, controls, statistics and tables."""
