"""``./dev bench``: runs the measurements, round by round, and shows them."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click
from rich.console import Console

from agentq.store.embedded import ensure_server
from benchmarks import measures, report
from benchmarks.contenders import Contender
from benchmarks.measures import MEASURES, Measure, ready
from benchmarks.report import Readings, Row

NAMES = [measure.name for measure in MEASURES]


@click.command(epilog="Example: ./dev bench latency throughput --rounds 3")
@click.argument("names", nargs=-1, metavar="[NAME]...", type=click.Choice(NAMES))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Readings of each contender.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw the ratios there (SVG).")
@click.option("--list", "listing", is_flag=True, help="Say what is measured, and end.")
def main(names: tuple[str, ...], rounds: int, json_file: Path | None, picture: Path | None, listing: bool) -> None:
    """Measure agentq beside stock Celery, stock Celery tuned, and a bare loop of redis-py.

    All run on one private server, two worker processes each; one reading of each in turn, round by round. What counts
    is the ratio of the medians: the machine is rarely quiet.
    """
    console = Console()
    chosen = [measure for measure in MEASURES if not names or measure.name in names]
    if listing:
        for measure in chosen:
            console.print(f"[bold]{measure.name}[/]  {measure.what}")
        return
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="agentq-bench-") as folder:
        place = ensure_server(Path(folder) / "state").url
        for measure in chosen:
            readings = _measure(measure, place, Path(folder), rounds, console)
            rows += report.rows_of(measure.name, measure.figures, readings)
    report.print_table(rows, console=console)
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_json(rows, rounds=rounds), indent=2) + "\n")
    if picture is not None:
        picture.write_text(report.picture(rows))


def _measure(measure: Measure, place: str, folder: Path, rounds: int, console: Console) -> Readings:
    contenders = _contenders(measure, place, folder)
    readings: Readings = {contender.name: [] for contender in contenders}
    with ExitStack() as stack, console.status(f"{measure.name}: starting workers"):
        pids = {contender.name: stack.enter_context(ready(measure, contender)) for contender in contenders}
        for number in range(rounds):
            for contender in contenders:
                console.print(f"{measure.name}: round {number + 1} of {rounds}, {contender.name}", style="dim")
                readings[contender.name].append(measure.read(contender, pids[contender.name]))
    for contender in contenders:
        contender.flush()
    return readings


def _contenders(measure: Measure, place: str, folder: Path) -> list[Contender]:
    every = [
        Contender("stock", "stock", place, 0, folder),
        Contender("tuned", "tuned", place, 1, folder),
        Contender("agentq", "durable", place, 2, folder),
        Contender("agentq threads", "durable", place, 3, folder, pool="threads"),
        Contender("stock wide", "stock", place, 4, folder, pool="threads", concurrency=1_000),
        Contender("agentq wide", "durable", place, 5, folder, pool="threads", concurrency=1_000),
        Contender("floor", "floor", place, 6, folder),
    ]
    wanted = measure.contenders or (*measures.CELERIES, "floor")
    return [contender for contender in every if contender.name in wanted]


if __name__ == "__main__":
    sys.exit(main())
