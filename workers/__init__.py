"""The shipped application: the Celery app that worker processes load, and the agents in it."""
