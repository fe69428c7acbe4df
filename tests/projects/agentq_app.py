"""The library in an app of agentq's own, configured from a module in Celery's manner."""

from __future__ import annotations

from agentq import AgentQ

app = AgentQ("agentq_app")
app.config_from_object("tests.projects.celery_settings", namespace="CELERY")
app.autodiscover_tasks(["tests.projects"], related_name="library")


@app.task(name="plain.add", shared=False)
def plain_add(a: int, b: int) -> int:
    """A task that agentq has nothing to do with."""
    return a + b


@app.task(name="plain.fails", shared=False)
def plain_fails(message: str) -> None:
    raise ValueError(message)
