"""ppd_agents."""
