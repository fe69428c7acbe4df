"""The shop's app, as Celery's guide for Django writes it, with AgentQ in place of Celery."""

from __future__ import annotations

import os

from agentq import AgentQ

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.projects.shop.settings")

app = AgentQ("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
