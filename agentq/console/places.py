"""Why a run's steps went where they went, one line for each reason."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from agentq.console.tables import listing
from agentq.console.words import counted, one_line, plain, short_name
from agentq.core.models import StepSummary

LINES_AT_MOST = 12


def places_table(
    steps: Sequence[StepSummary], *, run: tuple[str, str | None, str | None] | None = None
) -> Table | None:
    """Where the steps went and why; None where needs have chosen no pool, and the timeline says it all.

    `run`: the run itself.
    """
    counts: dict[tuple[str, str, str], int] = {}
    if run is not None and run[1] is not None:
        counts[(f"{run[0]} (the run)", run[1], run[2] or "")] = 1
    for step in steps:
        if step.queue is not None:
            place = (short_name(step.name), step.queue, step.why or "")
            counts[place] = counts.get(place, 0) + 1
    if not any("needs " in why for _, _, why in counts):
        return None
    shown = list(counts.items())[:LINES_AT_MOST]
    rows = [
        (plain(name) if number == 1 else f"{plain(name)} x{number}", plain(pool), one_line(why))
        for (name, pool, why), number in shown
    ]
    left = len(counts) - len(shown)
    if left:
        rows.append(("…", "", counted(left, "more reason")))
    return listing(("step", "went to", "because"), rows, fold=("because",))
