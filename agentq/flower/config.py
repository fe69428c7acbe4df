"""Flower's configuration for agentq, read by `flower --conf=THIS FILE`.

Tornado executes it before Flower is built and takes as options the names that Flower knows
(`natural_time`, `tasks_columns`, `format_task`); every other name is its own. Options of the command line
come after it and win.
"""

from __future__ import annotations

from typing import Any

import click
from flower.views.tasks import TASK_COLUMNS

from agentq.engine.binding import binding_of
from agentq.flower.columns import COLUMNS, AgentNames, Condemned, describe_task

natural_time = True
tasks_columns = "name,uuid,run_id,agent,step,state,received,runtime,worker"

TASK_COLUMNS.update(COLUMNS)


# Read now: this file runs inside Celery's command, whose context knows the app that was named to it.
_capp = click.get_current_context().obj.app


def _agent_of(run_id: str) -> str | None:
    store = binding_of(_capp).store
    # Looked at first, because a run without a record would be searched for among all.
    if not store.is_recorded(run_id, run_id):
        return None
    summary = store.run(run_id)
    return None if summary is None else summary.agent


_names = AgentNames(_agent_of)
_condemned = Condemned(lambda: [letter.letter_id for letter in binding_of(_capp).store.letters()])


def format_task(task: Any) -> Any:
    """The task with agentq's columns."""
    return describe_task(task, _names, _condemned)
