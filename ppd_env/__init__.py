"""ppd_env."""
