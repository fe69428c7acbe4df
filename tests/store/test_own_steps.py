"""Own steps: a turn takes the one step that it has just sent for its own slot, where nobody is passed over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentq.core.errors import StaleHolder
from agentq.store.refs import GoOn, Holder, LogPlace, Taken
from tests.store.bench import Bench, break_rule

SEAT = "4711"


@pytest.fixture
def run(bench: Bench) -> Holder:
    bench.worker()
    holder = bench.run_agent("run")
    bench.client.delete(bench.keys.bell("q"))
    return holder


def send(bench: Bench, run: Holder, *, over: bool = True, low_share: int = 0, **options: Any) -> Taken | None:
    """Send the step ``c``; other options are the offer's."""
    child = bench.step("c", root="run", parent="run", ask="c", **options)
    going_on = GoOn(label="w1", seat=SEAT, queues=("q",), names=("read",), low_share=low_share, floor=0, over=over)
    return bench.store.send_and_take(run, token="t", seen=1, terms=going_on, offers=[child])[1]


def holder_of(taken: Taken) -> Holder:
    return Holder(root="run", id="c", worker="w1", take=taken.take)


def test_the_step_is_held_and_nobody_is_woken(bench: Bench, run: Holder) -> None:
    taken = send(bench, run)
    assert taken is not None
    assert taken.take == run.take + 1
    assert bench.state("c", "run") == "h"
    assert bench.lane() == []
    assert not bench.client.exists(bench.keys.bell("q"))
    bench.finish(holder_of(taken), entry='{"k":"result","id":"c","s":"ok","v":1}')
    assert bench.kinds("run") == ["start", "result"]


def test_asked_again_it_names_the_same_step(bench: Bench, run: Holder) -> None:
    first = send(bench, run)
    assert first is not None
    assert send(bench, run) == first
    assert bench.take() == [], "its numbers go on behind it"
    bench.finish(holder_of(first))
    assert send(bench, run) is None, "it has ended since"


def test_the_turn_hears_of_its_end_by_the_commit(bench: Bench, run: Holder) -> None:
    taken = send(bench, run)
    assert taken is not None
    bench.store.signal("run", "run", "go", '"on"')
    bench.client.delete(bench.keys.wake("run", "run"))
    entry = '{"k":"result","id":"c","s":"ok","v":1}'
    place = LogPlace(run, 1)

    def commit() -> list[bytes] | None:
        return bench.store.commit(holder_of(taken), hears=place, mode="done", status="SUCCESS", entry=entry).heard

    heard = commit()
    assert heard is not None
    assert [json.loads(line)["k"] for line in heard] == ["signal", "result"], "what came meanwhile stands in its order"
    assert not bench.client.exists(bench.keys.wake("run", "run")), "nobody is to be woken"
    assert commit() == heard, "asked again"


def test_another_turn_is_rung_for(bench: Bench, run: Holder) -> None:
    taken = send(bench, run)
    assert taken is not None
    place, entry = LogPlace(run._replace(root="other", id="other"), 0), '{"k":"result","id":"c","s":"ok","v":1}'
    committed = bench.store.commit(holder_of(taken), hears=place, mode="done", status="SUCCESS", entry=entry)
    assert committed.heard == []
    assert bench.client.exists(bench.keys.wake("run", "run"))


def test_who_has_the_turn_now_is_rung_for(bench: Bench, run: Holder) -> None:
    """It was given back, and taken again, when its step was about to commit for the one before."""
    taken = send(bench, run)
    assert taken is not None
    bench.store.requeue("w1", run.take)
    again = bench.take_one()
    assert (again.holder.id, again.holder.worker) == ("run", "w1")
    place, entry = LogPlace(run, 1), '{"k":"result","id":"c","s":"ok","v":1}'
    bench.store.commit(holder_of(taken), hears=place, mode="done", status="SUCCESS", entry=entry)
    assert bench.client.exists(bench.keys.wake("run", "run"))


def test_it_goes_before_others_of_its_lane_for_a_while_only(bench: Bench, run: Holder) -> None:
    bench.store.offer([bench.step("long", name="long")])
    assert send(bench, run, over=False) is None
    assert [got.holder.id for got in bench.take(slots=2)] == ["long", "c"]
    bench.drain()


def test_it_goes_first_while_the_slot_is_the_turn_s(bench: Bench, run: Holder) -> None:
    bench.store.offer([bench.step("long", name="long")])
    taken = send(bench, run)
    assert taken is not None
    assert bench.state("c", "run") == "h"
    assert [got.holder.id for got in bench.take(slots=2)] == ["long"], "whose place and ring are as they were"


def test_what_is_more_urgent_goes_before_it(bench: Bench, run: Holder) -> None:
    bench.store.offer([bench.step("other", name="long", lane=0)])
    assert send(bench, run) is None
    assert [got.holder.id for got in bench.take(slots=2)] == ["other", "c"]


def test_where_tenants_take_turns_nobody_is_passed_over(bench: Bench, run: Holder) -> None:
    bench.store.offer([bench.step("other", name="long", card={"tenant": "acme"})])
    assert send(bench, run, card={"tenant": "acme"}) is None
    assert [got.holder.id for got in bench.take(slots=2)] == ["other", "c"]


def test_the_lower_lanes_have_their_share(bench: Bench, run: Holder) -> None:
    bench.store.offer([bench.step("low", lane=9)])
    taken = send(bench, run, low_share=2)
    assert taken is not None
    assert (bench.state("low"), bench.state("c", "run")) == ("h", "q")


def test_a_short_one_that_comes_first_is_taken_instead(bench: Bench, run: Holder) -> None:
    bench.store.offer([bench.step("first")])
    taken = send(bench, run, over=False)
    assert taken is not None
    assert (bench.state("first"), bench.state("c", "run")) == ("h", "q")
    assert int(bench.client.llen(bench.keys.bell("q"))) == 1, "one came, one was taken, one still waits"


def test_nothing_is_taken_while_a_suspect_waits(bench: Bench, run: Holder) -> None:
    bench.store.offer([bench.step("bad")])
    bench.store.requeue("w2", bench.take("w2")[0].holder.take, lost=True)
    assert send(bench, run) is None
    assert bench.state("c", "run") == "q"


@pytest.mark.parametrize("offer", [{"delay_ms": 60_000}, {"resources": ("model",)}], ids=str)
def test_what_is_not_due_or_wants_a_warm_worker_is_left(bench: Bench, run: Holder, offer: dict[str, Any]) -> None:
    bench.store.offer([bench.step("other", name="long")])
    assert send(bench, run, **offer) is None


def test_a_stale_turn_takes_nothing(bench: Bench, run: Holder) -> None:
    bench.store.requeue("w1", run.take)
    with pytest.raises(StaleHolder):
        send(bench, run)
    assert bench.state("c", "run") is None


@pytest.mark.parametrize(("lost", "deaths"), [(True, "1"), (False, "0")])
def test_a_dead_child_is_the_step_s_fault_and_not_the_turn_s(
    bench: Bench, run: Holder, lost: bool, deaths: str
) -> None:
    send(bench, run)
    bench.store.requeue("w1", run.take, lost=lost, seat=SEAT)
    assert bench.state("run") == bench.state("c", "run") == "q"
    assert bench.record("c", "run").get("d", "0") == deaths
    assert bench.record("run").get("d", "0") == "0"


def test_without_the_rule_the_turn_would_be_blamed(bench: Bench, run: Holder) -> None:
    break_rule(bench, "local gone = next and give_back(worker, next, company, now) or 0", "local gone = 0")
    send(bench, run)
    bench.store.requeue("w1", run.take, lost=True, seat=SEAT)
    assert bench.record("run")["d"] == "1"


def test_a_turn_that_was_given_back_is_no_reason_to_stop_its_step(bench: Bench, run: Holder) -> None:
    taken = send(bench, run)
    assert taken is not None
    bench.store.requeue("w1", run.take)
    assert bench.take_one().holder.id == "run"
    assert bench.store.recalled([run], [SEAT]) == ["go on"]
    bench.finish(holder_of(taken))
    assert bench.store.recalled([run], [SEAT]) == ["another's"]
