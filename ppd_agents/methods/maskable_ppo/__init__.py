"""PPO with masked actions (Huang and Ontanon, 2022; sb3-contrib) on the defender's games."""

from ppd_agents.methods.maskable_ppo.training import PPOConfig, train_maskable_ppo

__all__ = ["PPOConfig", "train_maskable_ppo"]
