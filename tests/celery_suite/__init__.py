"""Celery's own integration tests, run on agentq's transport and backend: ``./dev celery-suite``."""
