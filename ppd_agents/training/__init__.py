"""The alternation of attacker and defender: presets, starts, logs, checkpoints."""
