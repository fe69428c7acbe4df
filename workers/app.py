"""The Celery app that the shipped worker processes load: ``agentq -A workers.app:app``."""

from __future__ import annotations

from agentq import AgentQ

app = AgentQ("workers", include=["workers.agents.research", "workers.agents.assistant"])
