"""A smoke of agentq on an older pair of Celery and kombu than the lock's: ``./dev test tests/older``."""
