"""Masked DQN on the graph of patches: Q-network, replay, exploration, saved agents."""
