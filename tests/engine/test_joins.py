"""Joins at work: fan-outs of more than a chunk, in agents and in canvas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from celery import chain, chord

from agentq.canvas import fan_out
from agentq.engine.spread import CHUNK
from tests.kit.leaks import check_leaks
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

TIMEOUT = 60
WIDE = CHUNK + 10


@pytest.fixture(scope="module")
def served(module_server: PrivateServer, start_module_worker: Callable[..., WorkerProcess]) -> ModuleType:
    url = module_server.celery_url
    start_module_worker("tests.engine.joins_app", url=url)
    return load_module("tests.engine.joins_app", url=url)


@pytest.fixture
def app(served: ModuleType, module_server: PrivateServer) -> Iterator[ModuleType]:
    served.app.set_current()
    yield served
    check_leaks(module_server.client, timeout=30)


def test_a_wide_map_goes_out_in_chunks_and_counts_as_its_members(app: ModuleType) -> None:
    handle = app.fan.start(WIDE)
    assert handle.get(timeout=TIMEOUT) == WIDE * (WIDE - 1)
    assert [step.status for step in handle.steps()] == ["succeeded"] * WIDE
    assert app.app.store.tree(handle.id)["n_steps"] == WIDE
    store = app.app.store
    members = store.client.lrange(store.keys.members(handle.id), 0, -1)
    assert sum(name.startswith(b"i|") for name in members) == 2
    assert {event.name for event in handle.events(follow=False)} == {"fan", app.double.name}


def test_compressed_messages_are_left_to_celery(app: ModuleType) -> None:
    assert app.fan_squeezed.start(3).get(timeout=TIMEOUT) == 6


def test_a_wide_maps_members_beyond_the_budget_are_refused(app: ModuleType) -> None:
    assert app.poor.start(WIDE).get(timeout=TIMEOUT) == WIDE - 505


def test_a_wide_canvas_goes_out_in_chunks(app: ModuleType) -> None:
    wide = chain(app.numbers_below.s(WIDE), fan_out(app.double.s()), app.total.s())
    result = wide.apply_async()
    assert result.get(timeout=TIMEOUT) == WIDE * (WIDE - 1)


def test_a_body_that_asks_for_a_sequence_reads_it_lazily(app: ModuleType) -> None:
    header = [app.double.s(number) for number in range(CHUNK + 10)]
    peeked = chord(header, app.peek.s()).apply_async().get(timeout=TIMEOUT)
    last = 2 * (CHUNK + 9)
    assert peeked == ["LazyList", CHUNK + 10, last, (CHUNK + 10) * (CHUNK + 9) - last]


def test_a_body_that_asks_for_a_list_or_nothing_gets_a_list(app: ModuleType) -> None:
    header = [app.double.s(1), app.double.s(2)]
    assert chord(header, app.untyped.s()).apply_async().get(timeout=TIMEOUT) == ["list", 6]
    assert chord(header, app.plain.s()).apply_async().get(timeout=TIMEOUT) == ["list", 6]
    assert chord(header, app.summing.s()).apply_async().get(timeout=TIMEOUT) == 8


def test_an_item_that_does_not_fit_is_found_when_it_is_read(app: ModuleType) -> None:
    assert "valid integer" in chord([app.word.s()], app.late.s()).apply_async().get(timeout=TIMEOUT)


def test_a_lazy_body_does_not_run_after_a_failure(app: ModuleType) -> None:
    result = chord([app.double.s(1), app.bad.s(2), app.bad.s(3)], app.peek.s()).apply_async()
    # Of the first to fail, whichever that was.
    with pytest.raises(Exception, match=r"bad [23]"):
        result.get(timeout=TIMEOUT)


def test_the_first_that_succeed_are_enough(app: ModuleType) -> None:
    handle = app.first_of.start([4, 3, 2, 5, 6, 10], 2)
    assert handle.get(timeout=TIMEOUT) == [3, 5]
    wait_until(
        lambda: all(step.status not in ("queued", "running") for step in handle.steps()),
        description="the others are called off",
        timeout=TIMEOUT,
    )
    assert [step.status for step in handle.steps()][:4] == ["failed", "succeeded", "cancelled", "succeeded"]


def test_too_few_that_succeed_are_a_failed_join(app: ModuleType) -> None:
    told = app.first_of.start([1, 4, 8], 2).get(timeout=TIMEOUT)
    assert "1 of 3 succeeded, 2 needed" in told
    assert "bad 4" in told


def test_a_body_of_many_messages_goes_out_in_chunks(app: ModuleType) -> None:
    body = chord([app.double.si(number) for number in range(WIDE)], app.total.s())
    result = chord([app.double.s(1), app.double.s(2)], body).apply_async()
    assert result.get(timeout=TIMEOUT) == WIDE * (WIDE - 1)
