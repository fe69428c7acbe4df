"""`agentq simulate`: how the autoscaler would do on a load, beside its rivals, without a worker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentq.cli.commands import ExampleCommand
from agentq.cli.errors import CommandRefused
from agentq.cli.output import print_json, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentq.fleet.simulator.contest import Contest
    from agentq.fleet.simulator.traces import Trace


@click.command(cls=ExampleCommand)
@click.argument("traces", nargs=-1, metavar="[TRACE]...")
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(2, 200), help="Seeds to compare on.")
@click.option(
    "--tuning", default=4, show_default=True, type=click.IntRange(1, 50), help="Other seeds, to tune rivals on."
)
@click.option("--processes", type=click.IntRange(1), help="Simulate in so many processes; else one for each core.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw costs and shares there (SVG).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def simulate(
    traces: tuple[str, ...], seeds: int, tuning: int, processes: int | None, picture: Path | None, as_json: bool
) -> int:
    """Compare the autoscaler's law with its rivals on simulated loads.

    A TRACE is diurnal, bursty, flash, cascade or sparse; without one, all of them. A file is a recorded load, one JSON
    object a line: {"at": 1.5, "service": 0.2}, in seconds. Each rival is tuned for each trace on seeds of its own, and
    shown where it does best for no more than what the law costs.

    Example:
      agentq simulate bursty --seeds 5
      agentq simulate --picture fronts.svg
    """
    from agentq.fleet.simulator.contest import HELD_OUT_SEEDS, TUNING_SEEDS, hold
    from agentq.fleet.simulator.traces import TRACES, load_trace

    chosen = traces or tuple(TRACES)
    recorded: dict[str, Trace] = {}
    for name in chosen:
        if name not in TRACES:
            if not Path(name).exists():
                raise CommandRefused(f'There is no trace and no file "{name}". The traces are {", ".join(TRACES)}.')
            recorded[name] = load_trace(Path(name))
    if picture is not None and not picture.parent.is_dir():
        raise CommandRefused(f"There is no folder {picture.parent} to draw into.")
    first, last = HELD_OUT_SEEDS[0], TUNING_SEEDS[0]
    contests = []
    for name in chosen:
        trace = recorded.get(name)
        contests.append(
            hold(
                name if trace is None else trace.name,
                tuning=range(last, last + tuning),
                held_out=range(first, first + seeds),
                make=None if trace is None else _always(trace),
                processes=processes or os.cpu_count() or 1,
                say=say,
            )
        )
    if picture is not None:
        from agentq.fleet.simulator.picture import picture as draw

        picture.write_text(draw(contests), encoding="utf-8")
    if as_json:
        print_json([_document(contest) for contest in contests])
        return 0
    from rich.console import Console

    from agentq.console.contests import contests_table

    Console().print(contests_table(contests))
    return 0


def _always(trace: Trace) -> Callable[[int], Trace]:
    return lambda _seed: trace


def _document(contest: Contest) -> dict[str, object]:
    return {
        "trace": contest.trace,
        "cost": contest.law.cost,
        "share_in_time": contest.law.share,
        "without_expected_steps": {"cost": contest.blind.cost, "share_in_time": contest.blind.share},
        "clairvoyant_cost": contest.bound.cost,
        "rivals": [
            {
                "name": duel.name,
                "parameters": None if duel.rival is None else duel.rival.parameters,
                "cost": None if duel.rival is None else duel.rival.cost,
                "share_in_time": None if duel.rival is None else duel.rival.share,
                "gain": duel.gain,
                "margin": duel.margin,
            }
            for duel in contest.duels
        ],
    }
