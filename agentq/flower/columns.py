"""Which run, agent and step a task of Flower belongs to.

A run is Celery's root id and a step its task id, so everything but the agent's name stands in the task's
own events. The agent's name is asked of whoever was given to `AgentNames`: Flower hands out copies of
tasks that know nothing of the other tasks in its memory.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterable
from time import monotonic
from typing import Any

COLUMNS = {"run_id": "Run", "agent": "Agent", "step": "Step"}
BELIEVED_S = 5.0
"""How long the list of dead letters is believed: a page asks for each of its tasks."""
REMEMBERED = 10_000
"""Names kept: as many runs as Flower's own memory of 100,000 tasks is likely to hold."""


def short_name(task_name: str | None) -> str:
    """The function's name without its module."""
    return (task_name or "").rpartition(".")[2]


class AgentNames:
    """The agent's name by run id, remembered; a lookup that fails costs the name, never the page."""

    def __init__(self, look_up: Callable[[str], str | None]) -> None:
        self._look_up = look_up
        self._known: OrderedDict[str, str] = OrderedDict()

    def of(self, run_id: str) -> str:
        """The agent of the run; `""` for a run of none, and while nobody can be asked."""
        if run_id not in self._known:
            try:
                name = self._look_up(run_id)
            except Exception:
                # Flower shows tasks also while the store is away; the next page asks again.
                return ""
            self._known[run_id] = name or ""
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return self._known[run_id]


class Condemned:
    """The ids of steps that are dead letters, as they were some seconds ago; none while nobody can be asked."""

    def __init__(self, look_up: Callable[[], Iterable[str]], *, clock: Callable[[], float] = monotonic) -> None:
        self._look_up = look_up
        self._clock = clock
        self._until = float("-inf")
        self._known: frozenset[str] = frozenset()

    def __contains__(self, step_id: object) -> bool:
        if self._clock() >= self._until:
            try:
                self._known = frozenset(self._look_up())
            except Exception:
                # As for the names: the page is shown without it.
                self._known = frozenset()
            self._until = self._clock() + BELIEVED_S
        return step_id in self._known


def describe_task(task: Any, names: AgentNames, condemned: Container[str] = ()) -> Any:
    """The task with run_id, agent and step among its fields, as Flower's `format_task` wants it back."""
    task.run_id = task.root_id or task.uuid
    task.agent = names.of(task.run_id)
    # An agent's task has the agent's name; what it does is the run, not a step of it.
    task.step = "" if task.uuid == task.run_id and task.name == task.agent else short_name(task.name)
    if task.uuid in condemned:
        # Its state is what its last event said: started. It waits for a person instead.
        task.step = f"{task.step or task.agent} (dead letter)"
    task._fields = (*type(task)._fields, *COLUMNS)
    return task
