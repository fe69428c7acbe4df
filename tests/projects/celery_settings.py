"""Settings in the manner of a Django settings module: Celery's under their prefix."""

from __future__ import annotations

import os

CELERY_TASK_TRACK_STARTED = True
CELERY_RESULT_EXTENDED = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE = {
    "note-a-line": {
        "task": "library.noted",
        "schedule": 0.5,
        "args": (os.environ.get("BEAT_FILE", ""), "ticked"),
    },
    "start-an-agent": {
        "task": "library.double_agent",
        "schedule": 0.5,
        "args": (21,),
    },
}
