"""``./dev bench``: runs the measurements, round by round, and shows them."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console

from agentq.store.embedded import ensure_server
from benchmarks import report
from benchmarks.measures import MEASURES
from benchmarks.session import Readings, Session

DOCS = Path(__file__).parent.parent / "docs" / "performance.md"

NAMES = [measure.name for measure in MEASURES]


@click.command(epilog="Example: ./dev bench latency throughput --rounds 3")
@click.argument("names", nargs=-1, metavar="[NAME]...", type=click.Choice([*NAMES, "all"]))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1), help="Readings of each contender.")
@click.option("--minutes", type=click.FloatRange(0.1), help="Begin no reading after that; the first round goes first.")
@click.option("--quick", is_flag=True, help="A tenth of the sizes: shows that it runs; its ratios mean little.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there.")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw the ratios there (SVG).")
@click.option("--table", type=click.Path(dir_okay=False, path_type=Path), help="Write the table there (Markdown).")
@click.option("--docs", is_flag=True, help="Renew docs/performance: its table, its picture and its figures.")
@click.option(
    "--from", "earlier", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Show an earlier --json."
)
@click.option("--list", "listing", is_flag=True, help="Say what is measured, and end.")
def main(
    names: tuple[str, ...],
    rounds: int,
    minutes: float | None,
    quick: bool,
    json_file: Path | None,
    picture: Path | None,
    table: Path | None,
    docs: bool,
    earlier: Path | None,
    listing: bool,
) -> None:
    """Measure agentq beside stock Celery, stock Celery tuned, and a bare loop of redis-py.

    All run on one private server, two worker processes each; one reading of each in turn, round by round. What counts
    is the ratio of the medians: the machine is rarely quiet. Whatever is stopped, the readings so far are kept.
    """
    # In a file or a pipe there is room for the whole table.
    console = Console(width=None if sys.stdout.isatty() else 150)
    # As Ctrl-C does: workers and server end with the measurement.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    chosen = [measure for measure in MEASURES if not names or "all" in names or measure.name in names]
    if listing:
        for measure in chosen:
            console.print(f"[bold]{measure.name}[/]  {measure.what}")
        return
    if docs:
        json_file, picture = DOCS.with_suffix(".json"), DOCS.with_suffix(".svg")
    if earlier is not None:
        found = report.from_json(json.loads(earlier.read_text()))
        _show(found, console=console, picture=picture, table=table, docs=docs)
        return
    began = time.monotonic()

    def say(words: str) -> None:
        console.print(f"{time.monotonic() - began:4.0f} s  {words}", style="dim", highlight=False)

    def keep(readings: Readings) -> None:
        if json_file is not None:
            json_file.write_text(json.dumps(report.as_json(readings), indent=2) + "\n")

    with tempfile.TemporaryDirectory(prefix="agentq-bench-") as folder:
        place = ensure_server(Path(folder) / "state").url
        seconds, scale = minutes and minutes * 60, 0.1 if quick else 1.0
        session = Session(place, Path(folder), scale=scale, seconds=seconds, say=say, done=keep)
        try:
            session.run(chosen, rounds)
        finally:
            found = report.Report(report.machine(), session.readings)
            _show(found, console=console, picture=picture, table=table, docs=docs)


def _show(
    found: report.Report, *, console: Console, picture: Path | None, table: Path | None, docs: bool = False
) -> None:
    rows = report.rows_of(found.readings)
    report.print_table(rows, console=console)
    if picture is not None:
        picture.write_text(report.picture(rows))
    if table is not None:
        table.write_text(report.markdown(rows, found.machine))
    if docs:
        DOCS.write_text(report.renewed(DOCS.read_text(), report.markdown(rows, found.machine)))


if __name__ == "__main__":
    sys.exit(main())
