"""Models of runs and steps for tests of what is shown."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console, RenderableType

from agentq.core.models import RunStatus, StepSummary

STATUSES: tuple[RunStatus, ...] = ("queued", "running", "succeeded")
BEGIN = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """A moment so many seconds after the beginning."""
    return BEGIN + timedelta(seconds=seconds)


def step(
    name: str,
    *times: float,
    status: RunStatus | None = None,
    attempts: int = 1,
    worker: str | None = "tools-1@host",
    number: int = 0,
    **more: Any,
) -> StepSummary:
    """A step queued, started and finished at these seconds, as many as are given."""
    moments = [at(seconds) for seconds in times]
    queued, started, finished = [*moments, None, None, None][:3]
    return StepSummary(
        step_id=f"{number:08d}-0000-0000-0000-000000000000",
        name=name,
        status=status or STATUSES[max(0, len(times) - 1)],
        attempts=attempts if started else 0,
        queue="tools",
        worker=worker if started else None,
        queued_at=queued,
        started_at=started,
        finished_at=finished,
        **{"error": None, "priority": "normal", "why": None, **more},
    )


def rendered(renderable: RenderableType, *, width: int = 100) -> str:
    """What a console of that width shows, without colours."""
    console = Console(file=io.StringIO(), width=width, record=True, force_terminal=False)
    console.print(renderable)
    return console.export_text()


def plain_console(*, width: int = 100, encoding: str = "utf-8") -> Console:
    """A console of that width and encoding for functions that ask for one."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(file=stream, width=width)
