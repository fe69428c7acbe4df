"""Durable AI agents on the Celery that you already run."""

__version__ = "0.1.0"
