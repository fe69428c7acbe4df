"""Lanes and tenants under load, eight processes in two workers: who waits for how many others.

Slots waited by a step: how many steps began after it was queued and before it began, by the server's clock.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple

import pytest

from tests.kit.leaks import check_leaks
from tests.kit.mode import settings_of
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

logger = logging.getLogger(__name__)

CROWDED = "tests.projects.crowded"
TIMEOUT = 60.0
SLOTS = 8
PAUSE = 0.03


class Site(NamedTuple):
    """A store, two workers of four processes each, and the project in this process."""

    mode: str
    server: PrivateServer
    crowded: Any


@pytest.fixture(scope="module", params=["fused", "split"])
def site(request: pytest.FixtureRequest, make_module_worker: Callable[..., WorkerProcess]) -> Iterator[Site]:
    """One site for all tests of this file."""
    env = settings_of(request.param, request.getfixturevalue("rabbitmq") if request.param == "split" else None)
    server = PrivateServer()
    server.start()
    workers = [make_module_worker(CROWDED, url=server.celery_url, env=env, concurrency=SLOTS // 2) for _ in range(2)]
    for worker in workers:
        worker.start()
    crowded = load_module(CROWDED, url=server.celery_url, **env)
    for worker in workers:
        worker.wait_ready()
    try:
        yield Site(request.param, server, crowded)
        check_leaks(server.client)
    finally:
        server.stop()


class Crowd:
    """A run that has queued many steps."""

    def __init__(self, site: Site, count: int, **options: Any) -> None:
        self.store = site.crowded.app.store
        self.handle = site.crowded.crowd.using(**options).start(count, PAUSE)
        self.count = count
        # Of those that were called off each is taken to be ended, and the run's own turn stands behind them.
        self.patience = max(TIMEOUT, count / 25)

    def begun(self) -> list[int]:
        """Return when its steps began, in ms, those that have; the run's own turns are not among them."""
        ids = [each for each in self.store.member_ids(self.handle.id) if each != self.handle.id]
        with self.store.client.pipeline(transaction=False) as pipe:
            for each in ids:
                pipe.hget(self.store.keys.step(self.handle.id, each), "b")
            return sorted(int(found) for found in pipe.execute() if found is not None)

    def wait_until_it_runs(self) -> None:
        """Return when all slots have had some of its steps, and the rest is queued."""
        wait_until(
            lambda: self.store.tree(self.handle.id).get("n_steps") == self.count and len(self.begun()) > 2 * SLOTS,
            description="the crowd runs",
            interval=0.1,
        )

    def end(self) -> None:
        """Call the rest off, where a busy machine has left any: it may have come to its end before."""
        called_off = self.handle.cancel()
        expected = ("cancelled", "succeeded") if called_off else ("succeeded",)
        wait_until(
            lambda: self.handle.status() in expected,
            description="the crowd is gone",
            timeout=self.patience,
            report=lambda: f"it was {'' if called_off else 'not '}called off, and is {self.handle.status()}",
        )
        # What was called off is still taken in its turn, to be ended: the next crowd would stand behind it.
        wait_until(
            lambda: not any(self.store.waiting("celery").values()),
            description="nothing waits any more",
            timeout=self.patience,
        )


def span(site: Site, result: Any) -> tuple[int, int]:
    """Return when a step was queued and when it began."""
    record = site.crowded.app.store.record(result.id, result.id)
    return int(record["c"]), int(record["b"])


def slots_waited(spans: Sequence[tuple[int, int]], others: list[int]) -> list[int]:
    """Return for each span how many of the others began within it."""
    return [bisect_left(others, begun) - bisect_right(others, queued) for queued, begun in spans]


def one_by_one(site: Site, count: int, **options: Any) -> list[tuple[int, int]]:
    """Queue steps, each when the one before has ended."""
    spans = []
    for _ in range(count):
        result = site.crowded.work.using(**options).delay(0.0)
        result.get(timeout=TIMEOUT)
        spans.append(span(site, result))
    return spans


def test_a_high_step_takes_the_next_free_slot_behind_a_thousand_low_ones(site: Site) -> None:
    crowd = Crowd(site, 1000, priority="low")
    crowd.wait_until_it_runs()
    spans = one_by_one(site, 10, priority="high")
    waited = slots_waited(spans, crowd.begun())
    crowd.end()
    # One by one as slots come free; each worker gives every eighth to the low ones, and split mode's hint travels.
    assert median(waited) <= (SLOTS / 2 if site.mode == "fused" else SLOTS), waited


def low_ones_beside_high_ones(site: Site, count: int) -> tuple[int, list[int]]:
    """Queue ten low steps behind so many high ones.

    Returns how many of these were left when the last low one was queued, and how many slots each low one waited.
    """
    crowd = Crowd(site, count, priority="high")
    crowd.wait_until_it_runs()
    low = [site.crowded.work.using(priority="low").delay(0.0) for _ in range(10)]
    for result in low:
        result.get(timeout=TIMEOUT)
    spans = [span(site, result) for result in low]
    begun = crowd.begun()
    crowd.end()
    return crowd.count - bisect_right(begun, max(queued for queued, _ in spans)), slots_waited(spans, begun)


def test_low_steps_have_their_share_beside_a_stream_of_high_ones(site: Site) -> None:
    # Ten of them at one in eight.
    most = 2 * 10 * 8
    left, waited = 0, list[int]()
    for count in (500, 1000, 4000):
        left, waited = low_ones_beside_high_ones(site, count)
        # Else this process had no core for so long that a crowd without a share would have been through as soon.
        if left > most:
            break
    assert left > most, f"only {left} high ones were left when the low ones were queued"
    assert max(waited) <= most, waited


def test_a_tenants_thousands_let_anothers_step_wait_for_a_few_slots(site: Site) -> None:
    crowd = Crowd(site, 300, tenant="big")
    crowd.wait_until_it_runs()
    spans = {tenant: one_by_one(site, 5, tenant=tenant) for tenant in ("small", "tiny")}
    begun = crowd.begun()
    crowd.end()
    for found in spans.values():
        waited = slots_waited(found, begun)
        assert median(waited) <= (SLOTS / 2 if site.mode == "fused" else SLOTS), waited


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_tenants_ten_thousand_let_anothers_one_wait_for_a_few_slots(site: Site) -> None:
    """Nearly all of them are queued still when the last of the other's has begun."""
    crowd = Crowd(site, 10_000, tenant="big")
    crowd.wait_until_it_runs()
    spans = one_by_one(site, 20, tenant="small")
    begun = crowd.begun()
    left = crowd.count - len(begun)
    crowd.end()
    waited = slots_waited(spans, begun)
    logger.info("%s: slots waited behind 10,000, of which %d were left: %s", site.mode, left, sorted(waited))
    assert left > 5000, "as good as all were still queued"
    assert median(waited) <= (SLOTS / 2 if site.mode == "fused" else SLOTS), waited
    assert max(waited) <= 4 * SLOTS, waited


def test_what_a_run_asks_for_has_its_lane_and_its_tenant(site: Site) -> None:
    store = site.crowded.app.store
    handle = site.crowded.shapes.using(tenant="acme", priority="high").start()
    assert handle.get(timeout=TIMEOUT) == 6
    members = [store.record(handle.id, each) for each in store.member_ids(handle.id)]
    assert len(members) > 15
    assert {(record["nm"], record.get("tn"), record["l"]) for record in members} == {
        (record["nm"], "acme", "3") for record in members
    }


def test_a_call_may_say_otherwise(site: Site) -> None:
    result = site.crowded.work.using(tenant="other", priority="critical").delay(0.0)
    assert result.get(timeout=TIMEOUT) == 1
    record = site.crowded.app.store.record(result.id, result.id)
    assert (record["tn"], record["l"]) == ("other", "0")
