"""`agentq autoscale backtest`: whether the forecast of each pool is better than the law without it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentq.cli.errors import CommandRefused
from agentq.cli.output import print_json, say
from agentq.cli.scaling import live_pools, slots_of

if TYPE_CHECKING:
    from agentq.cli.session import Session
    from agentq.core.pools import PoolSpec
    from agentq.core.seasons import Record
    from agentq.fleet.backtest import Backtest

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
"""Where nothing says when a trace begins."""


def try_pools(
    session: Session, names: Sequence[str], startup: timedelta | None, processes: int | None, *, as_json: bool
) -> int:
    """Try what the controllers have kept of these pools, and keep the verdicts; 1 where none could be tried."""
    specs = live_pools(session, names, say)()
    if not specs:
        raise CommandRefused(
            "No pool is scaled: give those that shall be the most workers they may have, max = 8, in the pools file."
        )
    store = session.app.store
    decisions = store.decisions()
    found: dict[str, Backtest] = {}
    for name, spec in specs.items():
        record, _ = store.seasons([name])[name]
        measured = decisions[name].load.startup_s if name in decisions else None
        tried = _try(spec, None, _startup(startup, measured), processes, record=record)
        if not tried.days:
            say(f"{name}: its controllers have not kept two weeks and a day yet: nothing can be tried.")
            continue
        store.keep_verdict(name, tried.verdict.model_copy(update={"at_ms": store.now_ms()}))
        found[name] = tried
        if spec.forecast == "report" and tried.verdict.is_better:
            say(f'{name}: the forecast is only told: say forecast = "count" in its table to have it raise the size.')
    _tell(found, as_json=as_json)
    return 0 if found else 1


def try_trace(
    session: Session,
    names: Sequence[str],
    trace: Path,
    begins: str | None,
    startup: timedelta | None,
    processes: int | None,
    *,
    as_json: bool,
) -> int:
    """Try a recorded load by the objective of one pool; 1 where it is too short."""
    from agentq.fleet.simulator.traces import load_trace

    if len(names) != 1:
        raise CommandRefused("Name the one pool whose objective the trace is tried by: agentq autoscale backtest POOL.")
    spec = live_pools(session, names, say)()[names[0]]
    loaded = load_trace(trace)
    begin_s = _moment(begins).timestamp()
    steps = [(begin_s + each.at, each.service) for each in loaded.arrivals]
    tried = _try(spec, steps, _startup(startup, None), processes, begins_s=begin_s)
    if not tried.days:
        days = loaded.seconds / 86_400
        raise CommandRefused(f"{trace} is {days:.1f} days long: two whole weeks, from a Monday, and a day are needed.")
    _tell({names[0]: tried}, as_json=as_json)
    return 0


def _try(
    spec: PoolSpec,
    steps: list[tuple[float, float]] | None,
    startup_s: float,
    processes: int | None,
    *,
    begins_s: float | None = None,
    record: Record | None = None,
) -> Backtest:
    from agentq.fleet.backtest import backtest
    from agentq.fleet.control import objective_of

    # The simulated workers have one slot each: its cost and its most are those of slots.
    slots = slots_of(spec)
    objective = objective_of(spec, 1)
    objective = objective.model_copy(update={"least": objective.least * slots, "most": objective.most * slots})
    return backtest(
        steps,
        objective,
        startup_s=startup_s,
        begins_s=begins_s,
        record=record,
        processes=processes or os.cpu_count() or 1,
        say=lambda words: say(f"{spec.name}: {words}"),
    )


def _startup(given: timedelta | None, measured: float | None) -> float:
    from agentq.core.scaling import PoolLoad

    if given is not None:
        return max(given.total_seconds(), 0.1)
    return measured if measured is not None else PoolLoad().startup_s


def _moment(text: str | None) -> datetime:
    if text is None:
        return MONDAY
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CommandRefused(f'--begins "{text}" is no time: write 2026-03-02T00:00, in UTC.') from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _tell(found: dict[str, Backtest], *, as_json: bool) -> None:
    if as_json:
        print_json([_document(name, each) for name, each in found.items()])
        return
    if found:
        from agentq.console.sizing import backtests_table
        from agentq.console.words import open_console

        open_console().print(backtests_table({name: each.verdict for name, each in found.items()}))
    for name, each in found.items():
        say(f"{name}: {each.verdict.words}")


def _document(name: str, tried: Backtest) -> dict[str, Any]:
    verdict = tried.verdict
    return {
        "pool": name,
        "better": verdict.is_better,
        "verdict": verdict.words,
        **verdict.model_dump(exclude={"at_ms"}),
        "each_day": [
            {
                "begins": datetime.fromtimestamp(begin, tz=UTC).isoformat(),
                "cost": plain[0],
                "share_in_time": plain[1],
                "forecast_cost": seasonal[0],
                "forecast_share_in_time": seasonal[1],
            }
            for begin, plain, seasonal in tried.days
        ],
    }
