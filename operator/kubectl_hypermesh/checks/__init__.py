"""Health checks by category."""
