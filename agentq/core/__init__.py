"""Values and pure rules: what a run, a step, a pool and an error are, and how they are written as JSON.

It needs the standard library and pydantic alone, and must not know that Redis or Celery exist.
"""
