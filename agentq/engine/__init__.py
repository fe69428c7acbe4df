"""agentq on Celery: the step task, the transport, the result backend, canvas, and the worker's boot steps."""
