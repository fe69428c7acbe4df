"""What guards cost the server: its own time for each admission and commit, with and without them.

    python -m benchmarks.guard_costs --steps 400 --rounds 9

Steps are moved by the scripts alone, with neither workers nor functions; all kinds take turns, round by round, on one
server. What counts are the ratios of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import uuid
from typing import Any, Final

from agentq.store import Store
from agentq.store.admissions import Admission, breaker_wish, rate_wish
from agentq.store.embedded import ensure_server
from agentq.store.refs import Holder, Offer
from benchmarks.place import state_folder

_LEASE_MS: Final = 3_600_000

SLOT = rate_wish("slot", in_flight=100_000)
ALL = [
    breaker_wish("breaker", rate=0.5, volume=10, window_ms=30_000, reset_ms=30_000, jitter=0.2, probes=1),
    rate_wish("rate", requests=1_000_000, tokens=1_000_000_000, window_ms=60_000, in_flight=100_000),
    SLOT,
    rate_wish("concurrency", in_flight=100_000),
]
KINDS: Final[dict[str, list[dict[str, Any]]]] = {"no guards": [], "one limit": [SLOT], "all guards": ALL}


def main() -> None:
    """Print the medians as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    store = Store(ensure_server(state_folder()).url, prefix=f"guard-costs-{uuid.uuid4().hex[:8]}")
    found: dict[str, list[float]] = {}
    for _ in range(given.rounds):
        for kind, gates in KINDS.items():
            for what, micros in _round(store, given.steps, gates).items():
                found.setdefault(f"{what}, {kind}", []).append(micros)
    print(json.dumps({name: round(statistics.median(each), 1) for name, each in found.items()}, indent=2))


def _round(store: Store, steps: int, gates: list[dict[str, Any]]) -> dict[str, float]:
    """Return the server's time in µs for each call of each kind."""
    worker, queue = uuid.uuid4().hex, f"q-{uuid.uuid4().hex}"
    store.enroll(worker, label="benchmark", queues=(queue,), concurrency=steps, lease_ms=_LEASE_MS)
    offers = [_step(queue) for _ in range(steps)]
    for at in range(0, steps, 100):
        store.offer(offers[at : at + 100])
    holders: list[Holder] = []
    while len(holders) < steps:
        taken = store.take(worker, uuid.uuid4().hex, slots=100, label="benchmark", queues=(queue,), low_share=0).taken
        names = [each.message.decode().split('"')[3].split("|") for each in taken]
        holders += [Holder(name[0], name[1], worker, each.take) for name, each in zip(names, taken, strict=True)]
    before = _server_time(store)
    for holder in holders if gates else []:
        store.admit(holder, Admission(gates=gates, tokens=10), token=uuid.uuid4().hex)
    between = _server_time(store)
    for holder in holders:
        store.commit(holder, mode="done", status="SUCCESS", settles={"ok": 1, "tokens": 5} if gates else None)
    after = _server_time(store)
    store.leave(worker)
    costs = {"commit": (after - between) / steps}
    return costs | {"admit": (between - before) / steps} if gates else costs


def _server_time(store: Store) -> int:
    return int(store.client.info("commandstats")["cmdstat_evalsha"]["usec"])


def _step(queue: str) -> Offer:
    name = uuid.uuid4().hex
    message = json.dumps({"body": "", "headers": {"id": name}})
    return Offer(root=name, id=name, queue=queue, lane=6, name="nothing", message=message)


if __name__ == "__main__":
    main()
