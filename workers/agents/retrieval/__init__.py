"""Classical retrieval over a folder of documents: pure functions that know neither Celery nor a run."""
