"""What controllers have decided, as tables: how pools stand now, and what was decided when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from agentq.console.words import duration, one_line
from agentq.core.seasons import Verdict
from agentq.core.sizing import Decision

STALE_MS = 15_000
"""A decision is published every few seconds while a controller leads."""


def sizing_table(
    decisions: Mapping[str, Decision], *, now_ms: int, stands: Mapping[str, Mapping[str, Any]] | None = None
) -> Table:
    """One row for each pool; of pools without a decision `stands` tells what is known, as `agentq pools` has it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    table.add_column("pool", no_wrap=True)
    for name in ("waiting", "oldest", "busy", "desired", "ready", "starting", "draining"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for pool in sorted({*decisions, *(stands or {})}):
        decision, row = decisions.get(pool), (stands or {}).get(pool)
        if decision is not None:
            table.add_row(pool, *_scaled(decision, now_ms))
        elif row is not None:
            table.add_row(pool, *_plain(row))
    return table


def history_table(decisions: Sequence[Decision]) -> Table:
    """One row for each decision, in their order."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    for name in ("when", "pool"):
        table.add_column(name, no_wrap=True)
    for name in ("had", "workers", "waiting", "rate", "service"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for each in decisions:
        when = datetime.fromtimestamp(each.at_ms / 1000, tz=UTC).astimezone()
        rate = max(each.load.quick_rate, each.load.calm_rate)
        table.add_row(
            f"{when:%m-%d %H:%M:%S}",
            each.pool,
            str(each.had),
            str(each.desired),
            str(each.load.waiting),
            f"{rate:.2f}/s",
            duration(each.load.service_s) if each.load.service_s else "-",
            one_line(each.why),
        )
    return table


def backtests_table(verdicts: Mapping[str, Verdict]) -> Table:
    """One row for each pool: what it would have cost and reached without the forecast, and with it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    table.add_column("pool", no_wrap=True)
    for name in ("days", "cost", "in time", "with forecast: cost", "in time"):
        table.add_column(name, justify="right")
    for pool, each in verdicts.items():
        table.add_row(
            pool,
            str(each.days),
            f"{each.cost:.2f}",
            f"{each.share:.1%}",
            f"{each.forecast_cost:.2f}",
            f"{each.forecast_share:.1%}",
        )
    return table


def _scaled(decision: Decision, now_ms: int) -> tuple[str | Text, ...]:
    load, age_ms = decision.load, now_ms - decision.at_ms
    why = one_line(decision.why)
    if decision.resting:
        why += f"; {decision.resting} not well"
    if decision.foretold is not None:
        why += f"; {decision.foretold}"
    if decision.mode == "dry":
        why += " (not done: dry run)"
    if age_ms > STALE_MS:
        why = f"no controller since {duration(age_ms / 1000)}: agentq autoscale"
    style = "yellow" if age_ms > STALE_MS or decision.trouble else ""
    return (
        str(load.waiting),
        duration(load.oldest_wait_s) if load.waiting else "-",
        f"{load.running}/{load.ready * load.slots}",
        Text(str(decision.desired), style="bold"),
        str(load.ready),
        str(load.starting),
        str(decision.draining),
        Text(why, style=style),
    )


def _plain(row: Mapping[str, Any]) -> tuple[str | Text, ...]:
    waiting = sum(row["waiting"].values())
    return (
        str(waiting),
        duration(row["oldest_s"]) if row["oldest_s"] is not None else "-",
        f"{row['busy']}/{row['slots']}",
        "-",
        str(len(row["workers"])),
        "-",
        "-",
        Text("not scaled: it says no max", style="dim"),
    )
