"""`agentq drain`: workers take nothing new, until it is undone or they end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from agentq.cli.commands import ExampleCommand
from agentq.cli.errors import CommandRefused
from agentq.cli.output import print_json, say
from agentq.cli.session import Session, app_command, json_option

if TYPE_CHECKING:
    from agentq.store import Store
    from agentq.store.workers import WorkerCard


class DurationType(click.ParamType):  # type: ignore[type-arg]  # the generic parameter came with click 8.3
    """Seconds, or text such as `30s` and `10m`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The duration; refused where it is none, or less than nothing."""
        from agentq.core.units import read_duration

        found = value if isinstance(value, timedelta) else read_duration(str(value))
        if not isinstance(found, timedelta):
            self.fail(f'"{value}" is no duration: write seconds, or such as 30s, 10m, 1h', param, ctx)
        return found


DURATION = DurationType()

KINDS = ("worker", "node", "pool")
LOOK_SECONDS = 0.2
TIMED_OUT = 3


@dataclass(frozen=True)
class Target:
    """What is drained; `name` is a worker's id, a machine's name, or a pool's."""

    kind: str
    name: str
    label: str

    @property
    def mark(self) -> str:
        """As the store has it."""
        return f"{self.kind}|{self.name}"


@click.command(cls=ExampleCommand)
@click.argument("target", required=False)
@click.option("--undo", is_flag=True, help="Let it take work again.")
@click.option("--wait", is_flag=True, help="Return when nothing runs there any more.")
@click.option("--timeout", type=DURATION, metavar="DURATION", help="Wait no longer; then it ends with status 3.")
@click.option("--grace", type=DURATION, metavar="DURATION", help="Hand over what still runs after so long.")
@json_option
@app_command
def drain(
    session: Session,
    target: str | None,
    undo: bool,
    wait: bool,
    timeout: timedelta | None,
    grace: timedelta | None,
    as_json: bool,
) -> int:
    """Have a worker, all workers of a machine, or a pool take nothing new; without a target, list what is drained.

    What waits is taken by others, what runs comes to its end, or goes on elsewhere after the grace. A worker is named
    by its name or id, a machine and a pool by theirs; write worker:NAME, node:NAME or pool:NAME where one name is two
    things. A machine and a pool stay drained until you undo it, also for workers that start later.

    Example:
      agentq drain gpu-7 --wait
      agentq drain pool:model --grace 30s
      agentq drain gpu-7 --undo
    """
    if target is None:
        if undo or wait or grace is not None:
            raise CommandRefused("Say what: agentq drain WORKER|NODE|POOL. Alone, the command lists what is drained.")
        return _list(session.app.store, as_json)
    if undo and (wait or grace is not None):
        raise CommandRefused("--undo takes neither --wait nor --grace: work is taken again at once.")
    if timeout is not None and not wait:
        raise CommandRefused("--timeout is for --wait.")
    store = session.app.store
    found = decide_target(target, pools=list(session.app.pools), cards=store.workers(), drained=list(store.drains()))
    if undo:
        was = store.undrain(found.mark)
        _tell(found, as_json, drained=False, held=None, words="takes work again." if was else "was not drained.")
        return 0
    store.drain(found.mark, **({} if grace is None else {"grace_ms": int(grace.total_seconds() * 1000)}))
    if wait:
        return _wait(store, found, timeout, as_json)
    held = _held(store, found)[0]
    _tell(found, as_json, drained=True, held=held, words=f"takes nothing new; {held} steps still run there.")
    return 0


def decide_target(
    text: str, *, pools: Sequence[str], cards: Sequence[WorkerCard], drained: Sequence[str] = ()
) -> Target:
    """What the words mean, of living workers, their machines, and pools; refused where it is none or several."""
    kind, colon, rest = text.partition(":")
    kinds, name = ((kind,), rest) if colon and kind in KINDS else (KINDS, text)
    # Also the queues that only a worker's command line names.
    pools = sorted({*pools, *(queue for card in cards for queue in card.queues)})
    known = {(mark.partition("|")[0], mark.partition("|")[2]) for mark in drained}
    found: list[Target] = []
    if "worker" in kinds:
        found += [
            Target("worker", card.id, card.label)
            for card in cards
            if name in (card.label, card.label.partition("@")[0]) or (len(name) >= 6 and card.id.startswith(name))
        ]
    if "node" in kinds and name in {node_of(card) for card in cards} | {name for kind, name in known if kind == "node"}:
        found.append(Target("node", name, name))
    if "pool" in kinds and name in {*pools, *(name for kind, name in known if kind == "pool")}:
        found.append(Target("pool", name, name))
    if not found:
        there = (
            ", ".join(sorted({*pools, *(card.label for card in cards), *(node_of(card) for card in cards)})) or "none"
        )
        raise CommandRefused(f'No living worker, no machine of one and no pool is called "{text}". There are: {there}.')
    if len(found) > 1:
        several = ", ".join(f"{each.kind}:{each.name}" for each in found)
        raise CommandRefused(f'"{text}" is several things: {several}. Name one of them so.')
    return found[0]


def _wait(store: Store, target: Target, timeout: timedelta | None, as_json: bool) -> int:
    end = time.monotonic() + timeout.total_seconds() if timeout is not None else None
    while True:
        held, heard = _held(store, target)
        if heard and not held:
            _tell(target, as_json, drained=True, held=0, words="is drained: nothing runs there.")
            return 0
        if end is not None and time.monotonic() >= end:
            _tell(
                target, as_json, drained=True, held=held, words=f"takes nothing new, and {held} steps still run there."
            )
            return TIMED_OUT
        time.sleep(LOOK_SECONDS)


def node_of(card: WorkerCard) -> str:
    """The machine of a worker, by the name that it gives itself."""
    return str(card.details.get("node") or card.details.get("host") or "")


def _held(store: Store, target: Target) -> tuple[int, bool]:
    """How many messages the target's workers hold, and whether all of them have heard that they are drained."""
    total, heard = 0, True
    for card in store.workers():
        if (target.kind == "worker" and card.id != target.name) or (
            target.kind == "node" and node_of(card) != target.name
        ):
            continue
        if target.kind == "pool" and target.name not in card.queues:
            continue
        heard = heard and (card.why is not None or target.name in card.report.get("left_out", ()))
        held = store.held_by_queue(card.id)
        total += held.get(target.name, 0) if target.kind == "pool" else sum(held.values())
    return total, heard


def _list(store: Store, as_json: bool) -> int:
    labels = {card.id: card.label for card in store.workers()}
    rows: list[dict[str, Any]] = []
    for mark, words in store.drains().items():
        kind, _, name = mark.partition("|")
        rows.append({"kind": kind, "name": name, "label": labels.get(name, name), **words})
    if as_json:
        print_json(rows)
        return 0
    if not rows:
        say("Nothing is drained.")
    for row in rows:
        grace = row.get("grace_ms")
        after = f", hands over after {grace / 1000:g} s" if grace is not None else ""
        say(f"{row['kind']} {row['label']}: drained{after}. Undo: agentq drain {row['kind']}:{row['name']} --undo")
    return 0


def _tell(target: Target, as_json: bool, *, drained: bool, held: int | None, words: str) -> None:
    if as_json:
        print_json({"kind": target.kind, "name": target.name, "label": target.label, "drained": drained, "held": held})
    else:
        say(f"{target.kind} {target.label} {words}")
