"""`agentq plan`: which machines a load should have: many small ones, few large ones, or a mix."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentq.cli.commands import ExampleCommand
from agentq.cli.errors import CommandRefused
from agentq.cli.output import print_json, say
from agentq.cli.session import Session, app_command, json_option
from agentq.core.units import read_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentq.core.planning import Shape
    from agentq.fleet.planning import Plan, Tried
    from agentq.fleet.simulator.traces import Trace

PLANNED_SEEDS = (101, 102)
"""Of a shipped load, which is made by a seed."""

CHECKED_SEEDS = (1, 2, 3)


def _seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    found = read_seconds(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no duration: write 5s, 250ms, 10m, 1h or 7d", ctx, param)
    return found


def read_seconds(text: str) -> float | None:
    """The seconds that a duration as settings have it stands for; None when it is none."""
    found = read_duration(text)
    return found.total_seconds() if isinstance(found, timedelta) else None


@click.command(cls=ExampleCommand)
@click.argument("traces", nargs=-1, metavar="[TRACE]...")
@click.option("--pool", help="Plan for the load that this pool had, from the archive of ended runs.")
@click.option("--since", default="1d", show_default=True, callback=_seconds, help="With --pool: so far back.")
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME[=SLOTS:COST[:STARTUP]]",
    help="A size of machine: steps at once, cost of an hour, start-up time; or the name of a declared pool.",
)
@click.option(
    "--slo-wait", default="10s", show_default=True, callback=_seconds, help="95 of 100 steps start within it."
)
@click.option("--startup", default="15s", show_default=True, callback=_seconds, help="Of shapes that name none.")
@click.option("--check", multiple=True, metavar="TRACE", help="Try what was chosen on this load too.")
@click.option("--processes", type=click.IntRange(1), help="Simulate in so many processes; else one for each core.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw the costs there (SVG).")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="With --pool: write its load there too.")
@json_option
@app_command
def plan(
    session: Session,
    traces: tuple[str, ...],
    pool: str | None,
    since: float,
    shapes: tuple[str, ...],
    slo_wait: float,
    startup: float,
    check: tuple[str, ...],
    processes: int | None,
    picture: Path | None,
    save: Path | None,
    as_json: bool,
) -> int:
    """Find the cheapest mix of machine sizes with which a load's steps start in time.

    The load is what a pool had (--pool), a shipped TRACE (diurnal, bursty, flash, cascade, sparse), or a file: see
    agentq simulate. The shapes are those of --shape, else all declared pools that have a cost. A mix is some machines
    that always run, and others that come and go.

    Example:
      agentq plan --pool tools --since 7d --shape small=1:0.06 --shape large=16:0.70:40s
      agentq plan bursty --shape small=1:0.06 --shape large=16:0.70:40s --picture plan.svg
    """
    for file in (picture, save):
        if file is not None and not file.parent.is_dir():
            raise CommandRefused(f"There is no folder {file.parent} to write {file.name} into.")
        if file is not None and not os.access(file if file.exists() else file.parent, os.W_OK):
            raise CommandRefused(f"{file} may not be written.")
    if slo_wait <= 0:
        raise CommandRefused("--slo-wait must be longer than nothing: no number of workers starts every step at once.")
    if save is not None and pool is None:
        raise CommandRefused("--save writes the load that a pool had: name it with --pool.")
    planned, checked = _loads(session, traces, pool, since, check)
    if save is not None:
        _write_trace(save, planned[0])
    chosen = _shapes(session, shapes, startup)
    from agentq.fleet.planning import plan as find

    found = find(planned, chosen, slo_s=slo_wait, check=checked, processes=processes or os.cpu_count() or 1, say=say)
    if picture is not None:
        from agentq.fleet.plan_picture import picture as draw

        picture.write_text(draw(found), encoding="utf-8")
    if as_json:
        print_json(_document(found))
    else:
        _tell(found, chosen)
    return 0 if found.chosen is not None else 1


def _loads(
    session: Session, traces: tuple[str, ...], pool: str | None, since: float, check: tuple[str, ...]
) -> tuple[list[Trace], list[Trace]]:
    from agentq.fleet.simulator.traces import TRACES

    checked = [trace for name in check for trace in _traces(name, CHECKED_SEEDS)]
    if pool is not None:
        if traces:
            raise CommandRefused(f'Plan for the load of pool "{pool}" or for {", ".join(traces)}, not for both.')
        return [_recorded(session, pool, since)], checked
    if not traces:
        raise CommandRefused(f"Name a load: --pool NAME for what a pool had, a file, or one of {', '.join(TRACES)}.")
    if not check:
        # Of a load that is made by a seed there are others that nothing was chosen by.
        checked = [trace for name in traces if name in TRACES for trace in _traces(name, CHECKED_SEEDS)]
    return [trace for name in traces for trace in _traces(name, PLANNED_SEEDS)], checked


def _traces(name: str, seeds: Sequence[int]) -> list[Trace]:
    from agentq.fleet.simulator.traces import TRACES, load_trace

    if name in TRACES:
        return [TRACES[name](seed) for seed in seeds]
    if not Path(name).exists():
        raise CommandRefused(f'There is no trace and no file "{name}". The traces are {", ".join(TRACES)}.')
    return [load_trace(Path(name))]


def _recorded(session: Session, pool: str, since: float) -> Trace:
    from agentq.fleet.simulator.traces import Arrival, Trace

    app = session.app
    if app.settings.archive_url is None:
        raise CommandRefused(
            "No archive is kept (AGENTQ_ARCHIVE=off), and the load of a pool is read from it. Give a file instead."
        )
    if pool not in app.pools:
        raise CommandRefused(f'There is no pool "{pool}". There are {", ".join(app.pools) or "none"}.')
    steps = app.store.recorded_load(pool, since_s=since)
    if not steps:
        raise CommandRefused(
            f'The archive holds no step of pool "{pool}" of the last {timedelta(seconds=since)}: look further back '
            f"(--since 30d), or give a file. Runs are archived when they have ended; the turns of agents do not count."
        )
    begin = steps[0].at_s
    arrivals = tuple(Arrival(step.at_s - begin, step.service_s) for step in steps)
    return Trace(pool, arrivals[-1].at + arrivals[-1].service, arrivals)


def _write_trace(file: Path, trace: Trace) -> None:
    lines = (json.dumps({"at": round(each.at, 3), "service": each.service}) for each in trace.arrivals)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _shapes(session: Session, given: Iterable[str], startup: float) -> list[Shape]:
    texts = list(given)
    found = [_shape(session, text, startup) for text in texts] if texts else _declared(session, startup)
    names = [shape.name for shape in found]
    for name in names:
        if names.count(name) > 1:
            raise CommandRefused(f'Two shapes are called "{name}": give each its own name.')
    if not found:
        raise CommandRefused(
            "No declared pool has a cost_per_hour and a number of slots, so there is nothing to compare. Give shapes: "
            "--shape small=1:0.06 --shape large=16:0.70 (slots, and cost of an hour)."
        )
    return found


def _declared(session: Session, startup: float) -> list[Shape]:
    """A shape of each declared pool that can be one; who named none is told of those that cannot."""
    found = []
    for name, spec in session.app.pools.items():
        if spec.cost_per_hour is not None and spec.concurrency != "auto":
            try:
                found.append(_of_pool(session, name, startup))
            except CommandRefused as refused:
                say(f"{refused} It is left out.")
    return found


def _shape(session: Session, text: str, startup: float) -> Shape:
    from pydantic import ValidationError

    from agentq.core.planning import Shape

    name, is_spelled, rest = text.partition("=")
    if not is_spelled:
        return _of_pool(session, name, startup)
    parts = rest.split(":")
    if len(parts) not in (2, 3):
        raise CommandRefused(f'"{text}" is no shape: write NAME=SLOTS:COST or NAME=SLOTS:COST:STARTUP, as small=1:0.06')
    seconds = read_seconds(parts[2]) if len(parts) == 3 else startup
    if seconds is None:
        raise CommandRefused(f'Shape "{text}": {parts[2]!r} is no start-up time: write 15s or 2m')
    try:
        return Shape.model_validate({"name": name, "slots": parts[0], "cost_per_hour": parts[1], "startup_s": seconds})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = str(first["loc"][0])
        raise CommandRefused(f'Shape "{text}": {place}: {first["msg"]} (given: {first["input"]!r})') from error


def _of_pool(session: Session, name: str, startup: float) -> Shape:
    from pydantic import ValidationError

    from agentq.core.planning import Shape

    pools = session.app.pools
    if name not in pools:
        raise CommandRefused(
            f'There is no pool "{name}" to take a shape from ({", ".join(pools) or "none is declared"}); '
            f"or write {name}=SLOTS:COST."
        )
    spec = pools[name]
    if spec.cost_per_hour is None:
        raise CommandRefused(f'Pool "{name}" has no cost_per_hour: declare it, or write {name}=SLOTS:COST.')
    if spec.concurrency == "auto":
        raise CommandRefused(
            f'Pool "{name}" has as many slots as its machine allows: write {name}=SLOTS:COST, or declare concurrency.'
        )
    slots = spec.concurrency
    try:
        return Shape(name=name, slots=slots, cost_per_hour=spec.cost_per_hour * slots, startup_s=startup)
    except ValidationError as error:
        # A pool may be called, and be as large, as no shape may.
        first = error.errors(include_url=False)[0]
        raise CommandRefused(
            f'Pool "{name}" is no shape: {first["loc"][0]}: {first["msg"]} (given: {first["input"]!r}). '
            "Give its shape another way: --shape NAME=SLOTS:COST."
        ) from error


def _tell(found: Plan, shapes: Sequence[Shape]) -> None:
    from agentq.console.plans import plan_table, plan_words
    from agentq.console.words import open_console

    console = open_console()
    console.print(plan_table(found))
    for line in plan_words(found, shapes):
        console.print(line)


def _document(found: Plan) -> dict[str, Any]:
    return {
        "slo_wait_s": found.slo_s,
        "peak_slots": found.needs[-1].slots if found.needs else 0,
        "chosen": None if found.chosen is None else _row(found.chosen),
        "checked": None if found.checked is None else _row(found.checked),
        "pairs": [_row(each) for each in found.of_each_pair],
        "tried": [_row(each) for each in found.tried],
    }


def _row(tried: Tried) -> dict[str, Any]:
    mix = tried.mix
    return {
        "mix": str(mix),
        "always": None if mix.base is None else {"shape": mix.base.name, "instances": mix.number},
        "as_needed": None if mix.elastic is None else {"shape": mix.elastic.name, "most": tried.most},
        "cost_per_hour": tried.cost,
        "share_in_time": tried.share,
        "p95_s": tried.p95,
        "meets": tried.meets,
        "slots_lost_with_one": mix.largest.slots,
    }
