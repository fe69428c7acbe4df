"""What retries, breakers, fallbacks and limits are worth: steps through a provider that fails, each with and without.

    python -m benchmarks.resilience --docs

The steps come in bursts, 67 a second on average, whatever becomes of those before. What becomes of a call follows from
a seed (tests/kit/provider.py), so that all ways meet the same provider.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import redis

from agentq.store.embedded import ensure_server
from benchmarks import report
from benchmarks.apps import ADDRESS, resilient
from benchmarks.processes import await_line, celery_worker, ended_afterwards
from tests.kit.provider import Model, Provider, Scenario, Seen, answer_to, provider

DOCS: Final = Path(__file__).parent.parent / "docs" / "resilience.md"

WAYS: Final[dict[str, list[str]]] = {
    "nothing": [],
    "Celery's `autoretry_for`": ["autoretry"],
    **{f"`{name}=`": [name] for name in resilient.OPTIONS},
    "all of them": list(resilient.OPTIONS),
}
"""By its name in the table, which wrappers a way has."""

STEPS: Final = 2000
BURST: Final = 40
PAUSE_S: Final = 0.6

REPEATED: Final = 5
"""One in so many has the prompt of half its number; half of these were asked before."""

WORKERS: Final = 2
THREADS: Final = 32
PATIENCE_S: Final = 90.0
"""For what is still under way when all was sent."""

READY: Final = ("SUCCESS", "FAILURE", "REVOKED")

BEGIN: Final = "<!-- table: python -m benchmarks.resilience --docs writes it -->\n"
END: Final = "<!-- end of table -->\n"


def scenario(steps: int, *, outage: bool = True) -> Scenario:
    """Return the provider's: its large model is away for a sixth of the time."""
    lasts = steps / BURST * PAUSE_S
    faults = {"error": 0.06, "slow": 0.04, "hang": 0.01, "garbage": 0.03}
    large = Model(faults=faults, cents=1.0, outage=(lasts * 0.3, lasts * 0.3 + lasts / 6) if outage else None)  # type: ignore[arg-type]
    small = Model(faults={"error": 0.01}, cents=0.2)
    return Scenario(seed=1, models={"large": large, "small": small}, at_once=resilient.AT_ONCE)


@dataclass(frozen=True)
class Reading:
    """What a way came to; times in seconds."""

    succeeded: int
    by_fallback: int
    of: int
    seen: Seen
    median: float
    p95: float


def prompts(steps: int) -> list[str]:
    """Return what is asked, in order."""
    return [f"prompt {number if number % REPEATED else number // 2}" for number in range(1, steps + 1)]


def measure(app: Any, client: Any, told: Provider, asked: Sequence[str], scene: Scenario) -> Reading:
    """Send all prompts in bursts, and return what became of them."""
    told.begin(scene)
    sent: dict[str, tuple[float, str]] = {}
    begin = time.monotonic()
    for number, prompt in enumerate(asked):
        if number % BURST == 0:
            time.sleep(max(0.0, begin + number / BURST * PAUSE_S - time.monotonic()))
        at = time.time()
        sent[app.tasks["ask"].delay("large", prompt).id] = at, prompt
    metas = _await(client, list(sent))
    took, well, small = [], 0, 0
    for task_id, meta in metas.items():
        at, prompt = sent[task_id]
        took.append(datetime.fromisoformat(meta["date_done"]).replace(tzinfo=UTC).timestamp() - at)
        answer = str(meta["result"])
        small += answer == f"small: {answer_to(prompt)}"
        well += meta["status"] == "SUCCESS" and answer.removeprefix("small: ") == answer_to(prompt)
    took.sort()
    p95 = took[int(len(took) * 0.95) - 1]
    return Reading(well, small, len(asked), told.seen(), statistics.median(took), p95)


def _await(client: Any, ids: list[str]) -> dict[str, dict[str, Any]]:
    """Return Celery's record of each task once all have ended; raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE_S
    found: dict[str, dict[str, Any]] = {}
    while left := [task_id for task_id in ids if task_id not in found]:
        for task_id, raw in zip(left, client.mget([f"celery-task-meta-{each}" for each in left]), strict=True):
            meta = json.loads(raw) if raw else {}
            if meta.get("status") in READY:
                found[task_id] = meta
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(left)} of {len(ids)} steps did not end within {PATIENCE_S:.0f} s, as {left[0]}")
        time.sleep(0.1)
    return found


@contextmanager
def served(place: str, database: int, wrappers: list[str], port: int, folder: Path) -> Iterator[tuple[Any, Any]]:
    """An app with these wrappers and two workers of it, and a client of its database, until the block ends."""
    url = f"{place}?db={database}"
    celery_url = url.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
    environment = {ADDRESS: celery_url, resilient.PROVIDER: str(port), resilient.WRAPPERS: ",".join(wrappers)}
    argv = celery_worker("benchmarks.apps.resilient", pool="threads", concurrency=THREADS, queues=None)
    client = redis.Redis.from_url(url)
    with ExitStack() as workers:
        for number in range(WORKERS):
            log = folder / f"{database}-{number}.log"
            named = [*argv, "-n", f"{number}-{os.getpid()}@%h"]
            started = ended_afterwards(named, log=log, environment={**environment, "AGENTQ_ARCHIVE": "off"})
            await_line(log, " ready.", workers.enter_context(started))
        app = resilient.make(celery_url, wrappers)
        try:
            yield app, client
        finally:
            app.close()
            client.close()


def table(readings: dict[str, Reading]) -> str:
    """Return the readings as Markdown, with the machine below."""
    lines = [
        "| The step has | succeeded | by fallback | calls made | told 429 | median | p95 | cost |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, reading in readings.items():
        cells = [
            f"{100 * reading.succeeded / reading.of:.1f} %",
            str(reading.by_fallback or ""),
            f"{reading.seen.total:,}",
            f"{reading.seen.of('refused'):,}",
            f"{reading.median:.2f} s",
            f"{reading.p95:.1f} s",
            f"${reading.seen.cents / 100:.2f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    known = report.machine()
    about = "; ".join(f"{name} {known[name]}" for name in ("when", "system", "processor", "cores", "python", "celery"))
    steps = next(iter(readings.values())).of
    return "\n".join(lines) + f"\n\n{steps:,} steps each. Measured on: {about}.\n"


@click.command(epilog="Example: python -m benchmarks.resilience --steps 200")
@click.option("--steps", default=STEPS, show_default=True, type=click.IntRange(BURST), help="Steps of each way.")
@click.option("--only", multiple=True, type=click.Choice(list(WAYS)), help="These ways alone.")
@click.option("--docs", is_flag=True, help="Renew the table of docs/resilience.md.")
def main(steps: int, only: tuple[str, ...], docs: bool) -> None:
    """Measure what wrappers are worth before a provider that fails."""
    os.environ["AGENTQ_ARCHIVE"] = "off"
    scene, readings = scenario(steps), {}
    with tempfile.TemporaryDirectory(prefix="agentq-bench-") as folder, provider(scene) as told:
        place = ensure_server(Path(folder) / "state").url
        os.environ[resilient.PROVIDER] = str(told.port)
        for database, (name, wrappers) in enumerate(WAYS.items()):
            if only and name not in only:
                continue
            with served(place, database, wrappers, told.port, Path(folder)) as (app, client):
                readings[name] = measure(app, client, told, prompts(steps), scene)
            print(table({name: readings[name]}).splitlines()[2], flush=True)
    written = table(readings)
    print(written)
    if docs:
        before, _, rest = DOCS.read_text().partition(BEGIN)
        DOCS.write_text(f"{before}{BEGIN}\n{written}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
