"""Which of several pools a call goes to, by what its process knows of the workers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from celery import chord, group

from agentq import Needs
from agentq.cli.pools import _words, pool_rows
from agentq.core.errors import InvalidArguments, QueueFull
from tests.kit.mode import settings_of
from tests.kit.projects import load_module
from tests.kit.sample import TIMEOUT
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

MODULE = "tests.projects.placed"
QUEUES = ("plain", "eu", "us", "small")


@pytest.fixture
def placed(server: PrivateServer) -> Any:
    """The project's module; what stays unserved goes at the end."""
    yield load_module(MODULE, url=server.celery_url)
    server.empty()


def enroll(module: Any, queue: str, slots: int = 4) -> None:
    """Have a worker serve the queue that takes nothing."""
    assert module.app.store.enroll(queue, label=queue, queues=(queue,), concurrency=slots, lease_ms=60_000)


def where(module: Any) -> Counter[str]:
    """Return how many messages wait in each queue."""
    return Counter({queue: sum(module.app.store.waiting(queue).values()) for queue in QUEUES})


def why(module: Any, step_id: str) -> str:
    """Return what the record says of the choice."""
    return str(module.app.store.record(step_id, step_id)["cd"])


def test_the_pool_with_a_worker_is_taken_and_the_record_says_why(placed: Any) -> None:
    enroll(placed, "us")
    result = placed.large.delay(1)
    assert where(placed)["us"] == 1
    assert "needs gpu=a100: us of 2, the only one with a worker" in why(placed, result.id)


def test_the_dearer_pool_helps_out_where_the_cheaper_one_is_full(placed: Any) -> None:
    enroll(placed, "us", slots=2)
    enroll(placed, "eu", slots=2)
    for number in range(20):
        placed.large.delay(number)
    found = where(placed)
    assert found["us"] + found["eu"] == 20
    assert abs(found["us"] - found["eu"]) <= 4, "one process does not send all to the pool that was best at first"


def test_a_group_is_shared_out_like_calls_one_by_one(placed: Any) -> None:
    enroll(placed, "us", slots=2)
    enroll(placed, "eu", slots=2)
    group(placed.large.s(number) for number in range(40)).apply_async()
    found = where(placed)
    assert found["us"] + found["eu"] == 40
    assert abs(found["us"] - found["eu"]) <= 6


def test_a_batch_goes_where_it_costs_least_and_a_preference_where_it_wants_to(placed: Any) -> None:
    enroll(placed, "us", slots=1)
    enroll(placed, "eu", slots=1)
    for number in range(6):
        placed.large.using(tier="batch").delay(number)
    assert where(placed) == Counter(us=6)
    placed.large.using(prefer=Needs(region="eu")).s(1).apply_async()
    assert where(placed) == Counter(us=6, eu=1), "a signature carries it"


def test_wishes_that_make_no_sense_are_refused_where_they_are_written(placed: Any) -> None:
    with pytest.raises(InvalidArguments, match='"batch", "interactive"'):
        placed.large.using(tier="bach")
    with pytest.raises(InvalidArguments, match="it is no Needs"):
        placed.large.using(prefer={"region": "eu"})
    with pytest.raises(InvalidArguments, match="deadline"):
        placed.large.using(deadline=5)
    with pytest.raises(InvalidArguments, match='"raise", "wait"'):
        placed.large.using(on_full="drop")


@pytest.mark.parametrize(
    ("step", "limits"),
    [("small", [25.0, 20.0]), ("plain", [630.0, 600.0]), ("limited", [35.0, 5.0])],
)
def test_a_pools_limits_hold_for_steps_that_have_none(placed: Any, step: str, limits: list[float]) -> None:
    getattr(placed, step).delay()
    (queue,) = +where(placed)
    text = placed.app.store.client.lrange(placed.app.store.keys.lane(queue, 6), 0, 0)[0]
    assert f'"timelimit":{limits}'.replace(" ", "").encode() in text.replace(b" ", b"")


@pytest.fixture(scope="module", params=["fused", pytest.param("stock", marks=pytest.mark.long)])
def served(
    request: pytest.FixtureRequest,
    module_server: PrivateServer,
    start_module_worker: Callable[..., WorkerProcess],
    make_module_worker: Callable[..., WorkerProcess],
) -> Any:
    """The module, and the first pool of each worker by its name."""
    env = {**settings_of(request.param), "AGENTQ_GPUS": "a100", "AGENTQ_STRANDED_AFTER": "0s"}
    module_server.empty()
    workers = {
        queues: make_module_worker(
            MODULE, url=module_server.celery_url, queues=queues, pool="threads", concurrency=4, env=env
        )
        for queues in (("plain", "small"), ("eu",))
    }
    for worker in workers.values():
        worker.start()
    for worker in workers.values():
        worker.wait_ready()
    module = load_module(MODULE, url=module_server.celery_url, **env)
    yield module, {worker.name: queues[0] for queues, worker in workers.items()}
    for worker in workers.values():
        worker.kill_tree()


def test_a_group_of_different_needs_lands_where_each_belongs(served: Any) -> None:
    module, pool_of = served
    parts = [module.plain.s(), module.large.s(), module.small.s(), module.plain.using(needs=Needs(region="eu")).s()]
    found = group(parts * 5).apply_async().get(timeout=TIMEOUT)
    pools = [pool_of[name] for name in found]
    assert set(pools[0::4]) == {"plain"}
    assert set(pools[1::4]) == {"eu"}, "nobody serves the other pool that has one"
    assert set(pools[2::4]) == {"plain"}
    assert set(pools[3::4]) == {"eu"}


def test_a_chord_goes_on_from_wherever_its_parts_ran(served: Any) -> None:
    module, pool_of = served
    done = chord([module.large.s(), module.small.s()], module.limited.si()).apply_async()
    assert pool_of[done.get(timeout=TIMEOUT)] == "plain"


def test_a_run_asks_for_more_from_within(served: Any) -> None:
    module, pool_of = served
    handle = module.ranging.start(12)
    pools = [pool_of[name] for name in handle.get(timeout=TIMEOUT)]
    assert pools == ["plain"] + ["eu"] * 14
    told = {step.why for step in handle.steps() if step.name.endswith(".large")}
    assert all(why is not None and why.startswith("needs gpu=a100: ") for why in told), told
    wait_until(partial(_is_over, handle), description="the run has ended")


def _is_over(handle: Any) -> bool:
    return bool(handle.status() == "succeeded")


def test_a_fan_out_over_a_full_pool_slows_down_and_does_not_fail(served: Any) -> None:
    module, _ = served
    handle = module.wide.start(60)
    assert handle.get(timeout=TIMEOUT) == 60
    told = [event for event in handle.events(follow=False) if event.kind == "held_back"]
    assert [event.fields["queue"] for event in told] == ["plain"]


def test_a_run_that_asks_for_what_nobody_has_hears_it_where_it_asked(served: Any) -> None:
    module, _ = served
    assert module.asking.start().get(timeout=TIMEOUT) == ["h100", "mars", "plein"]


def test_a_start_is_refused_when_too_many_wait_or_waits_for_room(placed: Any) -> None:
    for number in range(8):
        placed.plain.delay(number)
    with pytest.raises(QueueFull, match="max_waiting is 8") as refused:
        placed.plain.delay(8)
    assert (refused.value.pool, refused.value.limit) == ("plain", 8)
    with pytest.raises(QueueFull):
        placed.ranging.start(1)
    with pytest.raises(QueueFull):
        placed.plain.s(8).apply_async()
    assert where(placed) == Counter(plain=8)
    placed.limited.using(priority="high").delay()
    room = threading.Timer(0.3, placed.app.store.client.rpop, [placed.app.store.keys.lane("plain", 6), 2])
    room.start()
    placed.plain.using(on_full="wait").delay(8)
    room.join()
    assert where(placed) == Counter(plain=8), "two went, the urgent one and the one that waited came"


def test_a_group_from_outside_is_held_back_rather_than_cut_in_half(placed: Any) -> None:
    group(placed.plain.s(number) for number in range(20)).apply_async()
    assert where(placed) == Counter(plain=8)
    assert sum(placed.app.store.survey(["plain"])["plain"].held_back) == 12


def test_agentq_pools_tells_how_each_pool_stands(placed: Any) -> None:
    enroll(placed, "us")
    placed.large.delay()
    placed.small.using(priority="high").delay()
    group(placed.plain.s(number) for number in range(10)).apply_async()
    rows = {row["pool"]: row for row in pool_rows(placed.app)}
    assert (rows["us"]["workers"], rows["us"]["slots"], rows["us"]["busy"]) == (["us"], 4, 0)
    assert rows["us"]["expected_wait_s"] == 0.0
    assert (rows["us"]["waiting"]["normal"], rows["us"]["unschedulable"], rows["us"]["full"]) == (1, 0, False)
    assert (rows["small"]["waiting"]["high"], rows["small"]["unschedulable"]) == (1, 1)
    assert rows["small"]["expected_wait_s"] is None
    assert (rows["plain"]["full"], rows["plain"]["held_back"], rows["plain"]["max_waiting"]) == (True, 2, 8)
    assert rows["small"]["tags"] == {"disk": "nvme"}
    words = {name: _words(row) for name, row in rows.items()}
    assert words["plain"][-1] == "no worker: 8 unschedulable; full for normal and low (8 may wait), 2 held back"
    assert words["small"][:6] == ("small", "threads", 0, 4, 0, "1 high")
    placed.app.store.drain("pool|us")
    (drained,) = [row for row in pool_rows(placed.app) if row["pool"] == "us"]
    assert (drained["drained"], _words(drained)[-1]) == (True, "drained")


def test_a_drained_pool_is_avoided(placed: Any) -> None:
    enroll(placed, "us")
    enroll(placed, "eu")
    placed.app.store.drain("pool|us")
    placed.large.delay()
    assert where(placed) == Counter(eu=1)


def test_what_waits_in_a_pool_without_a_worker_goes_to_another_that_fits(served: Any) -> None:
    module, pool_of = served
    enroll(module, "us")
    wait_until(partial(_is_seen, module, "us"), description="this process knows of the worker")
    moved = module.large.using(tier="batch").delay(1)
    stays = module.plain.using(pool="us").delay(2)
    assert where(module)["us"] == 2, "the cheapest that has a worker"
    module.app.store.leave("us")
    assert pool_of[moved.get(timeout=TIMEOUT)] == "eu"
    assert "moved from us, which has no worker, to eu" in why(module, moved.id)
    wait_until(partial(_is_told, module, stays.id), description="the other is told as unschedulable")
    assert module.app.store.enroll("back", label="us", queues=("us",), concurrency=1, lease_ms=60_000)
    wait_until(lambda: module.app.store.unserved() == [], description="served again, it is not unschedulable any more")
    assert where(module)["us"] == 1, "and goes on where it waits"


def _is_seen(module: Any, pool: str) -> bool:
    outlook = module.app._lookout.outlook()
    return outlook is not None and outlook.loads[pool].slots > 0


def _is_told(module: Any, step_id: str) -> bool:
    return [(each.step_id, each.lacks, each.queue) for each in module.app.store.unserved()] == [
        (step_id, "worker", "us")
    ]
