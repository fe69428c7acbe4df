"""One set of functions in two Celery apps: ``durable`` with agentq, ``plain`` on the day after it was removed."""
