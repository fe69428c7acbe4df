"""Listings as tables: runs, steps, asks, agents, pools, workers, events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agentq.console.words import ago, duration, one_line, plain, short_id, short_name, status_text
from agentq.core.codec import dumps
from agentq.core.models import AskSummary, DeadLetter, Event, GateSummary, RunSummary, StepSummary

WIDE = 100
"""From this width on, ids are shown whole."""


def _table(*columns: str, right: Iterable[str] = (), fold: Iterable[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for name in columns:
        justify: Literal["right", "left"] = "right" if name in right else "left"
        table.add_column(
            name, justify=justify, overflow="fold" if name in fold else "ellipsis", no_wrap=name not in fold
        )
    return table


def _identity(identity: str, console: Console) -> str:
    return identity if console.width >= WIDE else short_id(identity)


def runs_table(runs: Sequence[RunSummary], *, now: datetime, console: Console) -> Table:
    """One row per run; columns that no run fills are left out, so that a narrow terminal keeps the rest."""
    tenants = any(run.tenant for run in runs)
    keys = any(run.key for run in runs)
    table = _table(
        "run",
        "agent",
        "status",
        "started",
        "took",
        *(["tenant"] if tenants else []),
        *(["key"] if keys else []),
        right=("took",),
        fold=("key",),
    )
    for run in runs:
        end = run.finished_at or (now if run.started_at else None)
        took = end - run.started_at if end and run.started_at else None
        table.add_row(
            _identity(run.run_id, console),
            plain(run.agent),
            status_text(run.status),
            ago(run.started_at, now),
            duration(took),
            *([plain(run.tenant or "")] if tenants else []),
            *([plain(run.key or "")] if keys else []),
        )
    return table


def steps_table(steps: Sequence[StepSummary], *, now: datetime, console: Console) -> Table:
    """One row per step, in the order given; what led it to its queue, or why it failed, stands in the last column."""
    table = _table(
        "step",
        "name",
        "status",
        "tries",
        "pool",
        "worker",
        "queued",
        "running",
        "why",
        right=("tries", "queued", "running"),
        fold=("why",),
    )
    for step in steps:
        reason = step.error or step.why
        table.add_row(
            _identity(step.step_id, console),
            short_name(step.name),
            status_text(step.status),
            str(step.attempts),
            plain(step.queue or "-"),
            worker_label(step.worker),
            duration(queued_time(step, now)),
            duration(running_time(step, now)),
            one_line(reason) if reason else "",
        )
    return table


def worker_label(worker: str | None) -> str:
    """A worker's label without the machine's name, `-` when there is none."""
    return "-" if not worker else plain(worker).partition("@")[0]


def queued_time(step: StepSummary, now: datetime) -> float | None:
    """Seconds from the step's offer to its (last) start, or to now; `None` when unknown."""
    if step.queued_at is None:
        return None
    end = step.started_at or step.finished_at or now
    return (end - step.queued_at).total_seconds()


def running_time(step: StepSummary, now: datetime) -> float | None:
    """Seconds from the step's (last) start to its end, or to now; `None` while it was never started."""
    if step.started_at is None:
        return None
    return ((step.finished_at or now) - step.started_at).total_seconds()


def asks_table(asks: Sequence[AskSummary], *, now: datetime, console: Console) -> Table:
    """One row per question; the question is never cut."""
    table = _table("ask", "run", "agent", "asked", "state", "question", "answers", fold=("ask", "question", "answers"))
    for ask in asks:
        table.add_row(
            plain(ask.ask_id),
            _identity(ask.run_id, console),
            plain(ask.agent),
            ago(ask.asked_at, now),
            plain(ask.state),
            plain(ask.question),
            answers_words(ask),
        )
    return table


def letters_table(letters: Sequence[DeadLetter], *, now: datetime, console: Console) -> Table:
    """One row per dead letter; what was wrong is never cut."""
    table = _table(
        "letter",
        "name",
        "why",
        "since",
        "queue",
        "deaths",
        "what was wrong",
        right=("deaths",),
        fold=("what was wrong",),
    )
    for letter in letters:
        table.add_row(
            _identity(letter.letter_id, console),
            short_name(letter.name or "-"),
            plain(letter.why),
            ago(letter.at, now),
            plain(letter.queue),
            str(letter.deaths) if letter.deaths else "-",
            one_line(letter.words),
        )
    return table


def answers_words(ask: AskSummary) -> str:
    """Which answers an ask takes, or the one that it got."""
    if ask.state == "answered":
        return one_line(dumps(ask.answer))
    if ask.options:
        return " | ".join(one_line(choice) for choice in ask.options)
    kind = ask.answer_schema.get("type", "")
    return "yes | no" if kind == "boolean" else str(kind)


def listing(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Iterable[str] = (),
    fold: Iterable[str] = (),
) -> Table:
    """A plain table of words; `Text` cells keep their style."""
    table = _table(*columns, right=right, fold=fold)
    for row in rows:
        table.add_row(*[cell if isinstance(cell, Text) else plain(cell) for cell in row])
    return table


def event_line(event: Event) -> Text:
    """One event on one line: offset, time, kind, what it is about, its fields."""
    line = Text.assemble(
        (f"{event.offset:>5} ", "dim"),
        (event.at.astimezone().strftime("%H:%M:%S.%f")[:-3], "dim"),
        " ",
        (plain(event.kind), "bold"),
    )
    if event.name:
        line.append(f" {short_name(event.name)}")
    if event.step_id:
        line.append(f" {short_id(event.step_id)}", style="dim")
    if event.worker:
        line.append(f" on {worker_label(event.worker)}", style="cyan")
    if event.fields:
        line.append(" " + one_line(" ".join(f"{name}={_field(value)}" for name, value in event.fields.items())))
    return line


def emitted_words(event: Event) -> str:
    """What a run emitted, as words: its kind and its fields."""
    return one_line(" ".join([event.name or "", *[f"{name}={_field(value)}" for name, value in event.fields.items()]]))


def held_up_words(event: Event) -> str:
    """What holds a run up, and what to do."""
    words = one_line(event.fields.get("error", ""))
    name = short_name(event.name or "")
    if event.kind == "stopped":
        why = one_line(event.fields.get("why", ""))
        return f"{name} was stopped: {why}. agentq runs resume {event.run_id}, or agentq runs cancel"
    if event.kind == "undo-failed":
        return f"{name} could not take back what was done: {words}"
    if event.kind == "condemned":
        return f"{name} is a dead letter: {words}. agentq dead replay {event.step_id}, or agentq dead drop"
    return f"{name} waits: {words}"


def _field(value: object) -> str:
    return value if isinstance(value, str) else dumps(value)


def breakers_table(breakers: Sequence[GateSummary], *, now_ms: int) -> Table:
    """One row per breaker: how it stands, what its window holds, who waits."""
    counts = ("calls", "failed", "tripped", "probes", "waiting")
    table = _table("breaker", "state", *counts, right=counts, fold=("breaker",))
    for each in breakers:
        state = (each.state or "").replace("_", "-")
        if each.opens_until is not None:
            left = each.opens_until.timestamp() - now_ms / 1000
            state = f"open, {duration(left)} left" if left > 0 else "open, to be tried"
        table.add_row(
            plain(each.name),
            state,
            *(str(count or 0) for count in (each.calls, each.errors, each.trips, each.in_flight, each.waiting)),
        )
    return table


def limits_table(limits: Sequence[GateSummary]) -> Table:
    """One row per rate or limit: what is in use of what is allowed, who waits."""
    counts = ("at once", "requests", "tokens", "waiting")
    table = _table("limit", *counts, "window", right=counts, fold=("limit",))
    for each in limits:
        table.add_row(
            plain(each.name),
            str(each.in_flight) if each.slots is None else f"{each.in_flight}/{each.slots}",
            _share(each.requests, each.requests_limit),
            _share(each.tokens, each.tokens_limit),
            str(each.waiting),
            "-" if each.window_ms is None else duration(each.window_ms / 1000),
        )
    return table


def _share(used: int | None, limit: int | None) -> str:
    return "-" if limit is None else f"{used or 0}/{limit}"
