"""What people and their tools see of runs and workers from outside: Sentry's events."""
