"""The live view of one run: what each kind of step stands at, and which worker does which step now.

Owns the picture of one moment. Asking for the moments, and when to stop, is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from agentq.console.tables import running_time, worker_label
from agentq.console.words import duration, is_utf8, one_line, short_id, short_name, status_text
from agentq.core.models import ENDED, AskSummary, StepSummary

FIXED_LINES = 4
"""Lines that the view takes beside the rows that grow: its heading, two blank lines, the cut's own line."""


@dataclass(frozen=True)
class RunMoment:
    """All that the view shows of a run at one moment."""

    run_id: str
    agent: str
    status: str
    began: datetime
    """When the run, or the watching of it, began."""
    now: datetime
    steps: Sequence[StepSummary] = ()
    asks: Sequence[AskSummary] = ()
    """The questions that wait for a person."""
    notes: Sequence[str] = field(default=())
    """What the run emitted lately and what the command has to say, oldest first."""


@dataclass
class NameCount:
    """How many steps of one name stand where."""

    name: str
    total: int = 0
    done: int = 0
    running: int = 0
    waiting: int = 0
    failed: int = 0
    again: int = 0
    """Steps that needed more than one attempt."""

    def words(self) -> str:
        """The counts that are not zero, e.g. `52/200, 3 running, 145 queued`."""
        parts = [f"{self.done}/{self.total}"]
        for number, word in (
            (self.running, "running"),
            (self.waiting, "queued"),
            (self.failed, "failed"),
            (self.again, "tried again"),
        ):
            if number:
                parts.append(f"{number} {word}")
        return ", ".join(parts)


def count_by_name(steps: Iterable[StepSummary]) -> list[NameCount]:
    """One count per step name, in the order in which the names first appear."""
    counts: dict[str, NameCount] = {}
    for step in steps:
        count = counts.setdefault(step.name, NameCount(step.name))
        count.total += 1
        count.done += step.status in ENDED
        count.failed += step.status == "failed"
        count.running += step.status == "running"
        count.waiting += step.status not in ENDED and step.status != "running"
        count.again += step.attempts > 1
    return list(counts.values())


class LiveView:
    """A renderable that shows the moment it was last given; it never grows higher than the terminal."""

    def __init__(self, moment: RunMoment) -> None:
        self.moment = moment
        self._spinner = Spinner("dots")
        self._plain_spinner = Spinner("line")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        moment = self.moment
        room = max(3, (options.max_height or console.height) - FIXED_LINES - len(moment.notes) - 2 * len(moment.asks))
        counts = count_by_name(moment.steps)
        active = [step for step in moment.steps if step.status == "running"]
        shown = counts[-max(1, room // 2) :]
        parts: list[RenderableType] = [self._heading(console, counts)]
        if shown:
            parts.append(_counts_table(shown, width=options.max_width))
        if active:
            parts.append(_active_table(active, now=moment.now, room=max(1, room - len(shown))))
        parts.extend(_ask_lines(ask) for ask in moment.asks)
        parts.extend(Text(one_line(note), style="dim", no_wrap=True, overflow="ellipsis") for note in moment.notes)
        yield Group(*parts)

    def _heading(self, console: Console, counts: Sequence[NameCount]) -> RenderableType:
        moment = self.moment
        done, total = sum(count.done for count in counts), sum(count.total for count in counts)
        status = status_text(moment.status)
        if moment.status == "parked":
            # Parked is the word for who runs agentq; who follows a run wants to know what it waits for.
            whom = "waits for an answer" if moment.asks else "waits for its steps" if done < total else "waits"
            status = Text(whom, style=status.style)
        words = Text.assemble(
            (one_line(moment.agent), "bold"),
            " ",
            (short_id(moment.run_id), "dim"),
            "  ",
            status,
            f"  {duration(moment.now - moment.began)}",
        )
        if total:
            words.append(f"  {done} of {total} steps")
        words.no_wrap, words.overflow = True, "ellipsis"
        line = Table.grid(padding=(0, 1))
        line.add_row(self._spinner if is_utf8(console) else self._plain_spinner, words)
        return line


def _counts_table(counts: Sequence[NameCount], *, width: int) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(10, width // 3))
    bars = width >= 60
    if bars:
        table.add_column(width=min(30, width // 4))
    table.add_column(no_wrap=True, overflow="ellipsis")
    for count in counts:
        bar = ProgressBar(total=count.total, completed=count.done, finished_style="green", complete_style="cyan")
        cells: list[RenderableType] = [f"  {short_name(count.name)}", *([bar] if bars else [])]
        table.add_row(*cells, Text(count.words(), style="red" if count.failed else ""))
    return table


def _active_table(active: Sequence[StepSummary], *, now: datetime, room: int) -> RenderableType:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", style="dim", no_wrap=True)
    ordered = sorted(active, key=lambda step: (step.worker or "", step.started_at or now))
    for step in ordered[:room]:
        table.add_row(f"  {worker_label(step.worker)}", short_name(step.name), duration(running_time(step, now)))
    if len(ordered) > room:
        table.add_row("", Text(f"and {len(ordered) - room} more", style="dim"), "")
    return Group(Text(), table)


def _ask_lines(ask: AskSummary) -> Text:
    return Text.assemble(
        ("? ", "bold magenta"),
        (one_line(ask.question), "bold"),
        (f"\n  agentq asks answer {ask.ask_id} VALUE", "dim"),
    )
