"""Flower's configuration for agentq, read by `flower --conf=THIS FILE`.

Tornado executes it before Flower is built and takes as options the names that Flower knows
(`natural_time`, `tasks_columns`, `format_task`); every other name is its own. Options of the command line
come after it and win.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from flower.views.tasks import TASK_COLUMNS

from agentq.flower.columns import COLUMNS, AgentNames, describe_task

natural_time = True
tasks_columns = "name,uuid,run_id,agent,step,state,received,runtime,worker"

TASK_COLUMNS.update(COLUMNS)


@cache
def _store() -> Any:
    from agentq.cli.locate import decide_app, load_app

    return load_app(decide_app(None, environ=os.environ, cwd=Path.cwd())).store


def _agent_of(run_id: str) -> str | None:
    # Looked at first, because a run without a record would be searched for among all.
    if not _store().record(run_id, run_id):
        return None
    summary = _store().run(run_id)
    return None if summary is None else str(summary.agent)


_names = AgentNames(_agent_of)


def format_task(task: Any) -> Any:
    """The task with agentq's columns."""
    return describe_task(task, _names)
