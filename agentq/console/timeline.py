"""A finished or running run as a picture: when each step was queued and when it ran.

Owns the drawing. Many steps of one name in a row are one stage, drawn as one line whose height says how
many of them ran at that moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from rich.console import Console, Group, RenderableType
from rich.text import Text

from agentq.console.tables import queued_time, running_time, worker_label
from agentq.console.words import duration, is_utf8, one_line, short_name
from agentq.core.models import StepSummary

MEMBERS_ALONE = 4
"""Up to so many steps of one name in a row are drawn one by one."""
LINES_AT_MOST = 40
LEVELS = "▁▂▃▄▅▆▇█"
ASCII_LEVELS = ".:-=+*##"


@dataclass(frozen=True)
class Stage:
    """Steps drawn on one line."""

    name: str
    steps: tuple[StepSummary, ...]

    @property
    def label(self) -> str:
        """The name, with the number of steps if there are several."""
        name = short_name(self.name)
        return name if len(self.steps) == 1 else f"{name} x{len(self.steps)}"


def stages_of(steps: Sequence[StepSummary]) -> list[Stage]:
    """The steps as lines, by the time they were queued: neighbours of one name together if they are many.

    If even so there are more lines than a screen has, all steps of one name are one line.
    """
    dated = sorted((step for step in steps if _begin(step) is not None), key=lambda step: _begin(step) or 0)
    stages: list[Stage] = []
    for name, members in groupby(dated, key=lambda step: step.name):
        same = tuple(members)
        alone = len(same) <= MEMBERS_ALONE
        stages.extend([Stage(name, (step,)) for step in same] if alone else [Stage(name, same)])
    if len(stages) <= LINES_AT_MOST:
        return stages
    by_name: dict[str, list[StepSummary]] = {}
    for step in dated:
        by_name.setdefault(step.name, []).append(step)
    return [Stage(name, tuple(same)) for name, same in by_name.items()]


def _begin(step: StepSummary) -> datetime | None:
    # A local call stands in no queue; of one that has ended its end is known.
    return step.queued_at or step.started_at or step.finished_at


def timeline(steps: Sequence[StepSummary], *, now: datetime, console: Console) -> RenderableType:
    """The picture, as wide as the console: attempts, pool, queued and running time, then the bars.

    Queued time is drawn light, running time solid. On a narrow console the columns go before the bars.
    """
    stages = stages_of(steps)
    if not stages:
        return Text("No step has been sent yet.", style="dim")
    begins = [moment for step in steps if (moment := _begin(step)) is not None]
    begin, end = min(begins), max(step.finished_at or now for stage in stages for step in stage.steps)
    span = max((end - begin).total_seconds(), 0.001)
    columns = _columns(stages, now, width=console.width)
    text_width = sum(len(column[0]) + 2 for column in columns)
    bar_width = max(10, console.width - text_width - 1)
    utf8 = is_utf8(console)
    lines = [_heading(columns, span, bar_width)]
    for row, stage in enumerate(stages[:LINES_AT_MOST]):
        line = Text()
        for number, column in enumerate(columns):
            line.append(column[row + 1] + "  ", style="" if number == 0 else "dim")
        line.append_text(_bar(stage, begin=begin, span=span, width=bar_width, now=now, utf8=utf8))
        lines.append(line)
    if len(stages) > LINES_AT_MOST:
        lines.append(Text(f"and {len(stages) - LINES_AT_MOST} more kinds of steps", style="dim"))
    lines.append(_legend(utf8))
    return Group(*[_cut(line) for line in lines])


def _columns(stages: Sequence[Stage], now: datetime, *, width: int) -> list[list[str]]:
    """Columns of equally long cells, the heading first; what a width has no room for is left out."""
    columns = [["step", *[one_line(stage.label) for stage in stages]]]
    if width >= 80:
        columns.append(["pool", *[_one_of({step.queue or "in place" for step in stage.steps}) for stage in stages]])
    if width >= 100:
        columns.append(
            [
                "worker",
                *[_one_of({worker_label(step.worker) for step in stage.steps}, "workers") for stage in stages],
            ]
        )
    columns.append(["tries", *[_range([step.attempts for step in stage.steps]) for stage in stages]])
    if width >= 70:
        columns.append(["queued", *[_slowest(stage, queued_time, now) for stage in stages]])
        columns.append(["running", *[_slowest(stage, running_time, now) for stage in stages]])
    limit = max(12, width // 3)
    padded = []
    for number, column in enumerate(columns):
        cells = [cell if len(cell) <= limit else cell[: limit - 1] + "…" for cell in column]
        longest = max(map(len, cells))
        left = number == 0 or column[0] in ("pool", "worker")
        padded.append([cell.ljust(longest) if left else cell.rjust(longest) for cell in cells])
    return padded


def _one_of(words: set[str], many: str = "") -> str:
    if len(words) == 1:
        return one_line(next(iter(words)))
    return f"{len(words)} {many}" if many else one_line(", ".join(sorted(words)))


def _range(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"


def _slowest(stage: Stage, measure: object, now: datetime) -> str:
    assert callable(measure)
    values = [value for step in stage.steps if (value := measure(step, now)) is not None]
    if not values:
        return "-"
    return duration(max(values)) if len(values) == 1 else f"≤ {duration(max(values))}"


def _heading(columns: Sequence[Sequence[str]], span: float, bar_width: int) -> Text:
    line = Text("  ".join([column[0] for column in columns]) + "  ", style="bold")
    last = duration(span)
    line.append("0" + last.rjust(bar_width - 1), style="dim")
    return line


def _bar(stage: Stage, *, begin: datetime, span: float, width: int, now: datetime, utf8: bool) -> Text:
    queued = [0.0] * width
    running = [0.0] * width
    failed = False
    for step in stage.steps:
        first = _begin(step)
        assert first is not None
        start = step.started_at or step.finished_at or now
        finish = step.finished_at or now
        _cover(queued, (first - begin).total_seconds(), (start - begin).total_seconds(), span)
        if step.started_at is not None or step.queue is None:
            _cover(running, (start - begin).total_seconds(), (finish - begin).total_seconds(), span, mark=True)
        failed = failed or step.status == "failed"
    colour = "red" if failed else "yellow" if any(s.attempts > 1 for s in stage.steps) else "green"
    peak = max(running) or 1.0
    levels = LEVELS if utf8 else ASCII_LEVELS
    line = Text()
    for waits, runs in zip(queued, running, strict=True):
        if runs > 0:
            height = len(levels) if len(stage.steps) == 1 else max(1, round(runs / peak * len(levels)))
            line.append(levels[height - 1], style=colour)
        elif waits > 0:
            line.append("░" if utf8 else "-", style="dim")
        else:
            line.append(" ")
    return line


def _cover(cells: list[float], start: float, end: float, span: float, *, mark: bool = False) -> None:
    """Add to each cell how much of it the time covers; a marked time is never too short to see."""
    width = len(cells)
    first, last = start / span * width, end / span * width
    low, high = min(width - 1, int(first)), min(width - 1, int(last))
    for cell in range(low, high + 1):
        share = min(last, cell + 1) - max(first, cell)
        if share > 0:
            cells[cell] += min(1.0, share)
    if mark:
        cells[low] = max(cells[low], 0.01)


def _legend(utf8: bool) -> Text:
    wait, run = ("░", "█") if utf8 else ("-", "#")
    return Text.assemble(
        (wait, "dim"),
        (" queued  ", "dim"),
        (run, "green"),
        (" running  ", "dim"),
        (run, "yellow"),
        (" tried again  ", "dim"),
        (run, "red"),
        (" failed", "dim"),
    )


def _cut(line: Text) -> Text:
    line.no_wrap = True
    line.overflow = "crop"
    return line
