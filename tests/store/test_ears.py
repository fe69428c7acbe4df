"""Subscriptions that stay open: none is missed, none is made anew for each wait."""

from __future__ import annotations

import threading

from agentq.store import Store
from agentq.store.ears import IDLE, KEPT
from tests.kit.waiting import wait_until
from tests.store.bench import Bench


def ended(bench: Bench, name: str) -> None:
    bench.store.offer([bench.step(name)])
    bench.finish(bench.take_one().holder)


def subscribers(bench: Bench) -> int:
    return sum(int(each["sub"]) > 0 for each in bench.client.client_list())


def test_waits_one_after_the_other_share_one_subscription(bench: Bench) -> None:
    names = [f"s{number}" for number in range(KEPT + 5)]
    for name in names:
        ended(bench, name)
        assert bench.store.wait_outcome(name, 30) is not None
    assert subscribers(bench) == 1
    assert len(bench.client.pubsub_channels()) <= KEPT + 1, "what has ended is taken back"


def test_what_was_not_there_in_time_is_heard_by_the_next_wait(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    holder = bench.take_one().holder
    assert bench.store.wait_outcome("s1", 0.01) is None
    for number in range(KEPT + 1):
        assert bench.store.wait_outcome(f"other{number}", 0.0) is None
    other = Store(bench.store.url)
    bench_of_other = Bench.__new__(Bench)
    bench_of_other.store = other
    thread = threading.Thread(target=lambda: bench_of_other.finish(holder))
    thread.start()
    assert bench.store.wait_outcome("s1", 30) is not None
    thread.join()
    other.close()


def test_many_who_wait_at_once_have_one_each_and_leave_a_few(bench: Bench) -> None:
    names = [f"s{number}" for number in range(IDLE + 4)]
    found: list[object] = []
    threads = [threading.Thread(target=lambda n=name: found.append(bench.store.wait_outcome(n, 30))) for name in names]
    for thread in threads:
        thread.start()
    for name in names:
        ended(bench, name)
    for thread in threads:
        thread.join()
    assert None not in found
    wait_until(lambda: subscribers(bench) <= IDLE, description="the others' connections to be closed")


def test_a_connection_that_was_cut_is_made_anew(bench: Bench) -> None:
    ended(bench, "s1")
    assert bench.store.wait_outcome("s1", 30) is not None
    for each in bench.client.client_list():
        if int(each["sub"]) > 0:
            bench.client.client_kill_filter(_id=each["id"])
    ended(bench, "s2")
    assert bench.store.wait_outcome("s2", 30) is not None
