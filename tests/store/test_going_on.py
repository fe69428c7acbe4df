"""Going on: the commit of a short step takes the next one for the slot that it frees."""

from __future__ import annotations

import pytest

from agentq.store.refs import GoOn, Holder, Taken
from tests.store.bench import Bench


@pytest.fixture
def held(bench: Bench) -> Holder:
    """The first of two steps, taken by ``w1``."""
    bench.worker()
    bench.store.offer([bench.step("s1"), bench.step("s2")])
    return bench.take_one().holder


def test_the_next_step_is_held_by_the_same_worker(bench: Bench, held: Holder) -> None:
    following = bench.go_on(held)
    assert following is not None
    assert following.holder == Holder(root="s2", id="s2", worker="w1", take=held.take + 1)
    assert (bench.state("s1"), bench.state("s2")) == ("d", "h")
    assert bench.go_on(following.holder) is None
    assert bench.state("s2") == "d"


def test_asked_again_it_names_the_same_step(bench: Bench, held: Holder) -> None:
    bench.store.offer([bench.step("s3")])
    first = bench.go_on(held)
    assert first is not None
    assert bench.go_on(held) == first
    assert bench.state("s3") == "q"
    bench.finish(first.holder)
    assert bench.go_on(held) is None, "it has ended since"


def test_the_worker_s_own_take_keeps_its_reply_and_its_numbers(bench: Bench) -> None:
    bench.store.offer([bench.step("s1"), bench.step("s2"), bench.step("s3")])
    first = bench.take_one(token="t")
    following = bench.go_on(first.holder)
    assert following is not None
    assert bench.take(token="t") == [], "what it had given has ended"
    assert bench.take_one(token="u").holder.take == following.holder.take + 1


def test_numbers_go_on_from_what_the_process_has_seen(bench: Bench, held: Holder) -> None:
    following = bench.go_on(held, floor=40)
    assert following is not None
    assert following.holder.take == 41


@pytest.mark.parametrize(
    "offer", [{"name": "long"}, {"kind": "agent", "name": "read", "version": "1"}, {"kind": "internal"}], ids=str
)
def test_what_is_not_known_to_be_short_keeps_its_place(bench: Bench, offer: dict[str, str]) -> None:
    bench.store.offer([bench.step("s1"), bench.step("other", **offer), bench.step("s2")])
    assert bench.go_on(bench.take_one().holder) is None
    assert [got.holder.id for got in bench.take(slots=2)] == ["other", "s2"]


@pytest.mark.parametrize(("version", "is_taken"), [("1", True), ("2", False), (None, False)])
def test_an_agent_is_told_by_its_version_too(bench: Bench, version: str | None, is_taken: bool) -> None:
    """Whether the worker may run another one is for its main process to see."""
    bench.store.offer([bench.step("s1"), bench.agent("run", version=version)])
    following = bench.go_on(bench.take_one().holder, names=("research\t1",))
    assert (following is not None) == is_taken
    assert bench.state("run") == ("h" if is_taken else "q")


def test_an_agent_without_a_version_follows_where_none_has_one(bench: Bench) -> None:
    bench.store.offer([bench.step("s1"), bench.agent("run", version=None)])
    assert bench.go_on(bench.take_one().holder, names=("research\t",)) is not None


def test_a_plain_message_keeps_its_place(bench: Bench, held: Holder) -> None:
    bench.client.rpush(bench.keys.lane("q", 6), '{"body":"plain"}')
    assert bench.go_on(held) is None
    assert [got.message["body"] for got in bench.take(slots=2)] == ["plain", "s2"]
    bench.store.drop("w1", 2)


def test_a_duplicate_is_dropped(bench: Bench, held: Holder) -> None:
    bench.client.rpush(bench.keys.lane("q", 6), '{"agentq":"s1|s1|1","body":"s1"}')
    following = bench.go_on(held)
    assert following is not None
    assert following.holder.id == "s2"
    assert bench.lane() == []


def test_the_most_urgent_comes_first_and_the_lowest_in_its_turn(bench: Bench) -> None:
    lanes = {"urgent": 0, "low": 9, "next": 6, "last": 6}
    bench.store.offer([bench.step("s1")])
    holder = bench.take_one().holder
    bench.store.offer([bench.step(name, lane=lane) for name, lane in lanes.items()])
    order = []
    while (following := bench.go_on(holder, low_share=3)) is not None:
        holder = following.holder
        order.append(holder.id)
    assert order == ["urgent", "low", "next", "last"]


def test_a_worker_that_was_given_up_does_not_go_on(bench: Bench, held: Holder) -> None:
    bench.client.set(bench.keys.of("dead", "w1"), 1, px=60_000)
    assert bench.go_on(held) is None
    assert bench.state("s2") == "q"


def test_nobody_goes_on_while_a_suspect_waits(bench: Bench, held: Holder) -> None:
    bench.store.offer([bench.step("bad")])
    bench.store.requeue("w2", bench.take("w2", slots=2)[1].holder.take, lost=True)
    bench.store.leave("w2")
    assert bench.suspects() == ["bad"]
    assert bench.go_on(held) is None
    assert bench.state("s2") == "q"


def test_nobody_goes_on_beside_a_suspect(bench: Bench) -> None:
    bench.store.offer([bench.step("bad")])
    bench.store.requeue("w2", bench.take_one("w2").holder.take, lost=True)
    suspect = bench.take_one("w2").holder
    bench.store.offer([bench.step("s1")])
    assert bench.go_on(suspect) is None
    assert bench.state("s1") == "q"


def test_a_cancelled_one_says_so(bench: Bench, held: Holder) -> None:
    bench.client.sadd(bench.keys.of("cancelled", "s2"), "s2")
    bench.client.pexpire(bench.keys.of("cancelled", "s2"), 60_000)
    following = bench.go_on(held)
    assert following is not None
    assert following.cancelled


@pytest.mark.parametrize(("lost", "deaths"), [(True, "1"), (False, "0")])
def test_what_a_dead_child_had_gone_on_with_goes_back(bench: Bench, held: Holder, lost: bool, deaths: str) -> None:
    """Its worker's main process knows of the first step only."""
    bench.go_on(held, seat="4711")
    bench.store.requeue("w1", held.take, lost=lost, seat="4712")
    assert bench.state("s2") == "h", "another child's"
    bench.store.requeue("w1", held.take, lost=lost, seat="4711")
    assert bench.state("s2") == "q"
    assert bench.record("s2").get("d", "0") == deaths
    assert bench.state("s1") == "d"


def test_what_a_child_has_gone_on_with_is_recalled_when_nobody_wants_it(bench: Bench, held: Holder) -> None:
    bench.go_on(held, seat="4711")
    assert bench.store.recalled([held], ["4711"]) == ["go on"]
    bench.client.sadd(bench.keys.of("cancelled", "s2"), "s2")
    bench.client.pexpire(bench.keys.of("cancelled", "s2"), 60_000)
    assert bench.store.recalled([held], ["4711"]) == ["next not wanted"]
    assert bench.store.recalled([held], [None]) == ["go on"]


def test_several_are_taken_at_once_where_many_wait(bench: Bench) -> None:
    bench.worker()
    bench.store.offer([bench.step(f"s{number}") for number in range(50)])
    first = bench.take_one().holder
    found = bench.go_on_with(first, most=8)
    # A sixteenth of the 48 that are left beside the first one.
    assert [got.holder.id for got in found] == ["s1", "s2", "s3", "s4"]
    assert [got.holder.take for got in found] == [first.take + number for number in range(1, 5)]
    bench.finish(found[1].holder)
    assert [got.holder.id for got in bench.go_on_with(first, most=8)] == ["s1", "s3", "s4"], "asked again"
    assert bench.state("s5") == "q"
    assert bench.take_one().holder.take == found[-1].holder.take + 1


def test_what_is_not_short_ends_what_is_taken_at_once(bench: Bench) -> None:
    bench.worker()
    names = ["read", "read", "long", *["read"] * 60]
    bench.store.offer([bench.step(f"s{number}", name=name) for number, name in enumerate(names)])
    found = bench.go_on_with(bench.take_one().holder, most=8)
    assert [got.holder.id for got in found] == ["s1"]
    assert bench.take_one().holder.id == "s2"


def test_one_at_a_time_where_few_wait(bench: Bench) -> None:
    bench.worker()
    bench.store.offer([bench.step(f"s{number}") for number in range(16)])
    assert len(bench.go_on_with(bench.take_one().holder, most=8)) == 1


def test_a_step_that_waited_in_hand_counts_for_as_long_as_it_ran(bench: Bench) -> None:
    bench.worker()
    bench.store.offer([bench.step("s1")])
    holder = bench.take_one(floor=7).holder
    assert holder.take % 8 == 0, "of the short ones every eighth is counted"
    bench.client.hset(bench.keys.step("s1", "s1"), "b", bench.store.now_ms() - 90)
    bench.finish(holder, ran_ms=3)
    (sums,) = bench.client.hvals(bench.keys.of("pace", "q"))
    assert sums.split(b"|")[:2] == [b"8", b"24"]


def follow(bench: Bench, *, names: tuple[str, ...] = ("read",)) -> Taken | None:
    """What the seat takes that has waited."""
    terms = GoOn(label="w1", seat="seat", queues=("q",), names=names, low_share=0, floor=0)
    return bench.store.follow("w1", bench.store.new_token(), terms)


def rings(bench: Bench) -> tuple[int, int]:
    """How often the bell of the queue was rung and not heard yet, and that of the seat."""
    return bench.client.llen(bench.keys.bell("q")), bench.client.llen(bench.keys.seat("w1", "seat"))


@pytest.fixture
def waits(bench: Bench, held: Holder) -> None:
    """The seat has ended both steps and waits for a next one, for longer than a test takes."""
    following = bench.go_on(held)
    assert following is not None
    bench.client.delete(bench.keys.bell("q"))
    assert bench.go_on(following.holder, lingers_ms=600_000) is None


@pytest.mark.usefixtures("waits")
def test_a_seat_that_waits_is_told_first_and_of_one_step_only(bench: Bench) -> None:
    bench.store.offer([bench.step("s3")])
    bench.store.offer([bench.step("s4")])
    assert rings(bench) == (1, 1)
    taken = follow(bench)
    assert taken is not None
    assert (bench.state("s3"), bench.state("s4")) == ("h", "q")
    assert rings(bench) == (1, 0)


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("offer", [{"name": "long"}, {"kind": "agent", "name": "read", "version": "1"}], ids=str)
def test_what_it_cannot_take_is_told_to_the_workers(bench: Bench, offer: dict[str, str]) -> None:
    bench.store.offer([bench.step("other", **offer)])
    assert rings(bench) == (1, 0)


@pytest.mark.usefixtures("waits")
def test_what_it_has_heard_and_may_not_take_it_tells_on(bench: Bench) -> None:
    bench.store.offer([bench.step("s3")])
    assert rings(bench) == (0, 1)
    bench.client.set(bench.keys.of("dead", "w1"), 1, ex=60)
    assert follow(bench) is None
    assert rings(bench) == (1, 0)


@pytest.mark.usefixtures("waits")
def test_a_seat_that_waits_no_longer_is_told_nothing(bench: Bench) -> None:
    assert follow(bench) is None
    bench.store.offer([bench.step("s3")])
    assert rings(bench) == (1, 0)


@pytest.mark.usefixtures("waits")
def test_another_seat_ends_nobody_s_wait(bench: Bench) -> None:
    terms = GoOn(label="w1", seat="other", queues=("q",), names=("read",), low_share=0, floor=0)
    assert bench.store.follow("w1", bench.store.new_token(), terms) is None
    bench.store.offer([bench.step("s3")])
    assert rings(bench) == (0, 1)
