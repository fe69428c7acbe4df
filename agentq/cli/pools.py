"""`agentq pools`: how each pool stands, and what holds it up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import click

from agentq.cli.commands import ExampleCommand
from agentq.cli.output import print_json, print_json_line, say
from agentq.cli.session import Session, app_command, json_option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from agentq.app import AgentQ
    from agentq.core.pools import PoolSpec
    from agentq.core.sizing import Decision
    from agentq.store.survey import Standing

WATCH_SECONDS = 1.0

LATE_S = 1.0
"""From so long on it is worth a word for how long the oldest has waited."""


@click.command(cls=ExampleCommand)
@click.option("--watch", is_flag=True, help="Show how they stand and are scaled, until Ctrl-C.")
@json_option
@app_command
def pools(session: Session, watch: bool, as_json: bool) -> int:
    """List the pools: who serves them, what runs and waits there, and what holds them up.

    With --watch and --json each look is a line.

    Example:
      agentq pools --json
      agentq pools --watch
    """
    if watch:
        return _watch(session.app, as_json=as_json)
    rows = pool_rows(session.app)
    if as_json:
        print_json(rows)
        return 0
    from agentq.console.tables import listing
    from agentq.console.words import open_console

    table = listing(
        ("pool", "kind", "workers", "slots", "busy", "waiting", "oldest", "tags", "to note"),
        [_words(row) for row in rows],
        right=("workers", "slots", "busy", "oldest"),
        fold=("waiting", "tags", "to note"),
    )
    open_console().print(table)
    lacking = [row["pool"] for row in rows if row["unschedulable"]]
    if lacking:
        say("Start a worker: " + "; ".join(f"agentq worker --pool {name}" for name in lacking))
    return 0


def _watch(app: AgentQ, *, as_json: bool) -> int:
    """Look once a second; ends with 130 by Ctrl-C, as every command does."""
    from rich.live import Live

    from agentq.console.words import open_console

    if as_json:
        while True:
            print_json_line(watched(app))
            time.sleep(WATCH_SECONDS)
    console = open_console()
    if not console.is_terminal:
        # Nothing can be drawn over: one picture below the other.
        while True:
            console.print(_picture(app), "")
            time.sleep(WATCH_SECONDS)
    with Live(_picture(app), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(WATCH_SECONDS)
            live.update(_picture(app), refresh=True)


def watched(app: AgentQ) -> dict[str, Any]:
    """How all pools stand now: the leaders' decisions, and of the other pools what the store tells."""
    from agentq.cli.autoscale import document_of

    now_ms = app.store.now_ms()
    decisions = scaled_now(app, now_ms)
    others = [row for row in pool_rows(app) if row["pool"] not in decisions]
    return {
        "at_ms": now_ms,
        "scaled": [document_of(decision) for decision in decisions.values()],
        "others": others,
    }


def scaled_now(app: AgentQ, now_ms: int) -> dict[str, Decision]:
    """The last decision of each pool that is scaled; without those that nobody scales or declares any more."""
    from agentq.console.sizing import STALE_MS

    declared = {name for name, spec in app.pools.items() if spec.max is not None}
    return {
        name: decision
        for name, decision in app.store.decisions().items()
        if name in declared or now_ms - decision.at_ms <= STALE_MS
    }


def _picture(app: AgentQ) -> RenderableType:
    from rich.text import Text

    from agentq.console.sizing import sizing_table
    from agentq.core.errors import StoreUnavailable

    try:
        now_ms = app.store.now_ms()
        decisions = scaled_now(app, now_ms)
        stands = {row["pool"]: row for row in pool_rows(app) if row["pool"] not in decisions}
    except StoreUnavailable as error:
        return Text(str(error), style="yellow")
    return sizing_table(decisions, now_ms=now_ms, stands=stands)


def pool_rows(app: AgentQ) -> list[dict[str, Any]]:
    """One row for each pool, as the JSON document has it; a worker that serves several pools counts in each."""
    from agentq.cli.catalogue import served_pools
    from agentq.cli.listings import device_lines

    specs, served = app.pools, served_pools(app)
    stands = app.store.survey(list(specs))
    unschedulable: dict[str, int] = {}
    for each in app.store.unserved():
        if each.lacks == "worker":
            unschedulable[each.queue] = unschedulable.get(each.queue, 0) + 1
    cards = app.store.workers()
    drained = {mark.partition("|")[2] for mark in app.store.drains() if mark.startswith("pool|")}
    return [
        {
            **_declared(spec),
            **_standing(spec, stands[name]),
            "workers": served.get(name, []),
            "unschedulable": _stranded(stands[name], unschedulable.get(name, 0)),
            "suspects": app.store.count_suspects(name),
            "drained": name in drained,
            "whys": {card.label: card.why for card in cards if name in card.queues and card.why is not None},
            "devices": [line for card in cards if name in card.queues for line in device_lines(card)],
        }
        for name, spec in specs.items()
    ]


def _declared(spec: PoolSpec) -> dict[str, Any]:
    return {
        "pool": spec.name,
        "kind": spec.kind,
        "concurrency": spec.concurrency,
        "tags": {name: str(value) for name, value in spec.tags.items()},
        "cost_per_hour": spec.cost_per_hour,
        "max_waiting": spec.max_waiting,
    }


def _standing(spec: PoolSpec, stands: Standing) -> dict[str, Any]:
    from agentq.core.lanes import PRIORITIES
    from agentq.store.survey import load_of

    wait = load_of(stands).wait_s(PRIORITIES["normal"]) if stands.slots else None
    held_back, refused = sum(stands.held_back), _full_for(spec, stands)
    return {
        "resting": stands.resting,
        "slots": stands.slots,
        "busy": stands.busy,
        "waiting": dict(zip(PRIORITIES, stands.waiting, strict=True)),
        "held_back": held_back,
        "full": held_back > 0 or bool(refused),
        "full_for": refused,
        "oldest_s": stands.oldest_s,
        "service_s": stands.service_s,
        "expected_wait_s": wait,
        "per_second": stands.per_second,
    }


def _full_for(spec: PoolSpec, stands: Standing) -> list[str]:
    """The priorities in which no newcomer has room: what would go before it counts, its own lane and those above."""
    from agentq.core.lanes import PRIORITIES

    if spec.max_waiting is None:
        return []
    before = accumulate(stands.waiting)
    return [name for name, waiting in zip(PRIORITIES, before, strict=True) if waiting >= spec.max_waiting]


def _stranded(stands: Standing, noted: int) -> int:
    """How many wait for any worker at all; where no worker lives, nobody has noted it."""
    return noted if stands.workers else max(noted, sum(stands.waiting))


def _words(row: Mapping[str, Any]) -> tuple[object, ...]:
    from agentq.console.words import duration

    late = row["oldest_s"] is not None and row["oldest_s"] >= LATE_S
    return (
        row["pool"],
        row["kind"],
        len(row["workers"]),
        row["slots"] or row["concurrency"],
        row["busy"],
        _waiting(row["waiting"]),
        duration(row["oldest_s"]) if late else "-",
        " ".join(f"{name}={value}" for name, value in row["tags"].items()) or "-",
        "; ".join(_notes(row)) or "-",
    )


def _waiting(lanes: Mapping[str, int]) -> str:
    words = [f"{number} {name}" for name, number in lanes.items() if number]
    return ", ".join(words) or "0"


def _notes(row: Mapping[str, Any]) -> list[str]:
    notes = []
    if row["drained"]:
        notes.append("drained")
    elif row["whys"]:
        reasons = "; ".join(dict.fromkeys(row["whys"].values()))
        notes.append(f"{len(row['whys'])} of its workers take nothing: {reasons}")
    if not row["workers"]:
        notes.append("no worker" + (f": {row['unschedulable']} unschedulable" if row["unschedulable"] else ""))
    notes += [f"{number} x {line}" for line, number in Counter(row["devices"]).items()]
    if row["suspects"]:
        # They wait beside the lanes, each for an idle worker.
        notes.append(f"{row['suspects']} wait to run alone: agentq doctor")
    if row["full"]:
        bound = f" ({row['max_waiting']} may wait)" if row["max_waiting"] is not None else ""
        refused = row["full_for"]
        lanes = f" for {' and '.join(refused)}" if 0 < len(refused) < len(row["waiting"]) else ""
        notes.append(f"full{lanes}{bound}" + (f", {row['held_back']} held back" if row["held_back"] else ""))
    return notes
