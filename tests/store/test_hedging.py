"""Hedges: a slow step gets a second one, once and elsewhere; one of the two answers, and all follows from that once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentq.core.errors import CalledOff
from agentq.store.admissions import Admission, rate_wish
from agentq.store.refs import Holder, Offer
from tests.kit.server import PrivateServer
from tests.properties.rules import HEDGE_RULES
from tests.store.bench import LONG_AGO, TREE, Bench, Got, agent_join, break_rule, meta


class Hedges:
    """Two workers with two places each, and steps that are slow at once."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.client, self.keys = bench.client, bench.keys
        for worker in ("w1", "w2"):
            self.client.hset(self.keys.worker(worker), "slots", 2)

    def step(self, name: str, *, root: str | None = None, **options: Any) -> Offer:
        """A step whose message is one that agentq has written."""
        named = root if root is not None else name
        headers = {"id": name, "root_id": named, "agentq": {"k": "s", **options.pop("ours", {})}}
        message = {"body": "", "headers": headers, "properties": {"correlation_id": name}}
        text = json.dumps(message, separators=(",", ":"))
        return self.bench.step(name, root=named, message=text, **{"hedge": "60000", **options})

    def begin(self, name: str, *, worker: str = "w1", root: str | None = None, **options: Any) -> Holder:
        self.bench.store.offer([self.step(name, root=root, **options)])
        return self.taken(name, worker)

    def taken(self, name: str, worker: str = "w1") -> Holder:
        got = self.bench.take_one(worker)
        assert got.holder.id == name
        return got.holder

    @property
    def armed(self) -> list[str]:
        return [name.decode() for name in self.client.zrange(self.keys.of("hedges"), 0, -1)]

    def pass_time(self) -> None:
        """All that runs is slow from now on."""
        self.client.zadd(self.keys.of("hedges"), dict.fromkeys(self.armed, LONG_AGO)) if self.armed else None
        self.bench.tick()

    def second_of(self, name: str, root: str | None = None) -> str:
        """The id of a step's hedge."""
        return self.bench.record(name, root)["tw"]

    def hedge(self, name: str, *, worker: str = "w2", root: str | None = None) -> Got:
        """Have a step's hedge taken."""
        self.pass_time()
        got = self.bench.take_one(worker)
        assert got.holder.id == self.second_of(name, root)
        return got

    def fail(self, holder: Holder, *, also: str | None = None, **options: Any) -> bool:
        return self.commit(holder, "FAILURE", also=also, **options)

    def commit(self, holder: Holder, status: str, *, also: str | None = None, value: Any = 1, **options: Any) -> bool:
        """Commit an end; whether it is the answer."""
        ids = [holder.id, *([also] if also is not None else [])]
        results = [(each, meta(each, status=status, result=value)) for each in ids]
        return self.bench.store.commit(holder, mode="done", status=status, results=results, **options).answers

    def result(self, name: str) -> Any:
        return self.bench.look().result(name)

    def end(self, name: str, worker: str = "w1", root: str | None = None) -> None:
        """End what nobody wants any more, wherever it is."""
        got = self.bench.take_one(worker)
        assert (got.holder.id, got.cancelled) == (name, True)
        self.commit(got.holder, "REVOKED")


@pytest.fixture
def hedges(bench: Bench) -> Hedges:
    return Hedges(bench)


def test_a_slow_step_gets_a_second_one_elsewhere(bench: Bench, hedges: Hedges) -> None:
    hedges.begin("a")
    hedges.pass_time()
    second = hedges.second_of("a")
    assert second != "a"
    assert len(second) == 36
    assert bench.take("w1") == [], "the worker that holds the first leaves it to others"
    got = bench.take_one("w2")
    assert got.holder.id == second
    headers = got.message["headers"]
    assert (headers["id"], headers["root_id"], headers["agentq"]["hd"]) == (second, "a", "a")
    assert got.message["properties"]["correlation_id"] == second
    assert hedges.armed == [], "and a third one never"


def test_a_fast_step_gets_none(bench: Bench, hedges: Hedges) -> None:
    first = hedges.begin("a")
    assert len(hedges.armed) == 1
    bench.finish(first)
    assert hedges.armed == []
    bench.store.offer([hedges.step("b", hedge=None)])
    hedges.taken("b")
    assert hedges.armed == []


def test_the_time_counts_from_each_attempt_on(bench: Bench, hedges: Hedges) -> None:
    before = bench.store.now_ms()
    first = hedges.begin("a")
    (score,) = [score for _, score in hedges.client.zrange(hedges.keys.of("hedges"), 0, -1, withscores=True)]
    assert before + 60_000 <= score <= bench.store.now_ms() + 60_000
    bench.again(first)
    assert hedges.armed == []
    hedges.taken("a")
    assert hedges.armed == [f"a|a|{bench.generation('a')}"]


def test_the_time_of_an_earlier_attempt_counts_for_nothing(bench: Bench, hedges: Hedges) -> None:
    first = hedges.begin("a")
    bench.store.requeue(first.worker, first.take)
    hedges.taken("a")
    assert hedges.armed == ["a|a|1", "a|a|2"]
    bench.client.zadd(bench.keys.of("hedges"), {"a|a|1": LONG_AGO})
    bench.tick()
    assert "tw" not in bench.record("a")
    hedges.hedge("a")


def test_it_survives_a_tick_that_comes_late_and_a_step_that_has_moved(bench: Bench, hedges: Hedges) -> None:
    hedges.begin("a")
    bench.kill("w1")
    hedges.pass_time()
    assert "tw" not in bench.record("a"), "nobody runs it now"


def test_the_second_answers_for_both(bench: Bench, hedges: Hedges) -> None:
    run = bench.run_agent()
    bench.store.send(run, token="t", seen=1, offers=[hedges.step("a", root="run", parent="run", ask="a")])
    first = hedges.taken("a")
    got = hedges.hedge("a", root="run")
    entry = json.dumps({"k": "result", "id": "a", "s": "ok", "v": 7, "by": got.holder.id})
    hedges.commit(got.holder, "SUCCESS", also="a", value=7, entry=entry)
    assert [each["v"] for each in bench.log("run") if each["k"] == "result"] == [7]
    assert hedges.result("a")["result"] == 7
    assert bench.store.recalled([first]) == ["not wanted"]
    with pytest.raises(CalledOff):
        hedges.commit(first, "SUCCESS", value=8, entry=entry)
    late = json.dumps({"k": "result", "id": "a", "s": "revoked"})
    hedges.commit(first, "REVOKED", entry=late, usage={"tokens": 5}, offers=[bench.step("behind", root="run")])
    assert hedges.result("a")["result"] == 7
    assert [each["k"] for each in bench.log("run")].count("result") == 1
    assert bench.store.tree("run")["n_tokens"] == 5, "what the loser has used is charged"
    assert bench.state("behind", "run") is None
    assert [kind for kind in bench.events("run") if kind in ("hedged", "won")] == ["hedged", "won"]


def test_what_the_first_says_of_itself_late_is_no_answer(bench: Bench, hedges: Hedges) -> None:
    first = hedges.begin("a")
    got = hedges.hedge("a")
    assert bench.store.progress(first, meta("a", status="PROGRESS", result=50))
    assert hedges.result("a")["result"] == 50
    hedges.commit(got.holder, "SUCCESS", also="a", value=7)
    assert bench.store.progress(first, meta("a", status="PROGRESS", result=60)), "it still holds its step"
    assert (hedges.result("a")["result"], hedges.result("a")["status"]) == (7, "SUCCESS")
    hedges.commit(first, "REVOKED")


def test_an_end_says_whether_it_is_the_answer_also_when_asked_again(bench: Bench, hedges: Hedges) -> None:
    first = hedges.begin("a")
    got = hedges.hedge("a")
    assert [hedges.fail(first) for _ in range(2)] == [False, False]
    assert [hedges.commit(got.holder, "SUCCESS", also="a") for _ in range(2)] == [True, True]
    alone = hedges.begin("b")
    assert [hedges.fail(alone) for _ in range(2)] == [True, True]


def test_the_first_answers_and_the_second_ends(bench: Bench, hedges: Hedges) -> None:
    first = hedges.begin("a")
    got = hedges.hedge("a")
    hedges.commit(first, "SUCCESS", value=1)
    assert bench.store.recalled([got.holder]) == ["not wanted"]
    with pytest.raises(CalledOff):
        hedges.commit(got.holder, "SUCCESS", also="a", value=2)
    hedges.commit(got.holder, "REVOKED", also="a")
    assert (hedges.result("a")["result"], hedges.result("a")["status"]) == (1, "SUCCESS")
    assert hedges.result(got.holder.id)["status"] == "REVOKED"


def test_a_second_one_that_was_not_taken_never_starts(bench: Bench, hedges: Hedges) -> None:
    first = hedges.begin("a")
    hedges.pass_time()
    second = hedges.second_of("a")
    hedges.commit(first, "SUCCESS")
    hedges.end(second)


@pytest.mark.parametrize("loser", ["first", "second"])
def test_a_failure_is_no_answer_while_the_other_runs(bench: Bench, hedges: Hedges, loser: str) -> None:
    run = bench.run_agent()
    join = agent_join("run", "j", 1)
    bench.store.send(
        run,
        token="t",
        seen=1,
        joins=[join],
        offers=[hedges.step("a", root="run", parent="run", join=("run", "j"), index=0)],
    )
    first = hedges.taken("a")
    got = hedges.hedge("a", root="run")
    one, other = (first, got.holder) if loser == "first" else (got.holder, first)
    hedges.fail(one, also="a" if one is not first else None)
    assert hedges.result("a") == {}
    assert "joined" not in bench.kinds("run")
    hedges.commit(other, "SUCCESS", also="a" if other is not first else None, value=3)
    assert hedges.result("a")["result"] == 3
    assert bench.kinds("run").count("joined") == 1


@pytest.mark.parametrize("last", ["first", "second"])
def test_when_both_fail_the_last_one_answers(bench: Bench, hedges: Hedges, last: str) -> None:
    first = hedges.begin("a")
    got = hedges.hedge("a")
    order = [(got.holder, "a"), (first, None)] if last == "first" else [(first, None), (got.holder, "a")]
    for holder, also in order:
        hedges.fail(holder, also=also, value={"of": holder.id})
    assert hedges.result("a")["result"] == {"of": order[-1][0].id}
    assert hedges.result("a")["status"] == "FAILURE"


def test_a_failed_first_leaves_its_arguments_to_the_second(bench: Bench, hedges: Hedges) -> None:
    bench.client.set(bench.keys.payload("a", "large"), "[]")
    first = hedges.begin("a", payload="large")
    got = hedges.hedge("a")
    hedges.fail(first)
    assert bench.client.exists(bench.keys.payload("a", "large"))
    hedges.commit(got.holder, "SUCCESS", also="a")
    assert not bench.client.exists(bench.keys.payload("a", "large"))


def test_where_steps_wait_for_a_worker_no_second_one_is_started(bench: Bench, hedges: Hedges) -> None:
    hedges.begin("a")
    bench.store.offer([bench.step("other")])
    hedges.pass_time()
    assert "tw" not in bench.record("a")
    assert len(hedges.armed) == 1, "it is looked at again"
    bench.finish(bench.take_one("w1").holder)
    hedges.hedge("a")


def test_where_no_other_worker_is_free_none_is_started(bench: Bench, hedges: Hedges) -> None:
    hedges.begin("a")
    busy = [hedges.begin(name, worker="w2", hedge=None) for name in "bc"]
    hedges.pass_time()
    assert "tw" not in bench.record("a")
    bench.finish(busy[0])
    hedges.hedge("a")


def test_another_node_goes_first(bench: Bench, hedges: Hedges) -> None:
    for worker, node in (("w1", "n1"), ("w2", "n1"), ("w3", "n2")):
        if worker == "w3":
            bench.worker(worker)
        bench.client.hset(bench.keys.worker(worker), "details", json.dumps({"node": node}))
    hedges.begin("a")
    hedges.pass_time()
    assert bench.take("w2") == [], "it is on the same node"
    second = hedges.second_of("a")
    # It does not wait for that node for ever.
    bench.client.hset(bench.keys.step("a", second), "c", LONG_AGO)
    assert bench.take_one("w2").holder.id == second


def test_who_takes_the_next_step_by_a_commit_leaves_it_too(bench: Bench, hedges: Hedges) -> None:
    hedges.begin("a")
    other = hedges.begin("b", hedge=None)
    hedges.pass_time()
    assert bench.go_on(other) is None
    assert bench.take_one("w2").holder.id == hedges.second_of("a")


def test_a_cancelled_run_has_neither(bench: Bench, hedges: Hedges) -> None:
    run = bench.run_agent()
    bench.store.send(run, token="t", seen=1, offers=[hedges.step("a", root="run", parent="run", ask="a")])
    first = hedges.taken("a")
    got = hedges.hedge("a", root="run")
    bench.store.send(run, token="u", seen=1, cancels=["a"])
    assert bench.store.recalled([first]) == bench.store.recalled([got.holder]) == ["not wanted"]
    hedges.commit(got.holder, "REVOKED", also="a")
    hedges.commit(first, "REVOKED")
    assert hedges.result("a")["status"] == "REVOKED"


def test_a_cancelled_step_gets_none(bench: Bench, hedges: Hedges) -> None:
    run = bench.run_agent()
    bench.store.send(run, token="t", seen=1, offers=[hedges.step("a", root="run", parent="run", ask="a")])
    first = hedges.taken("a")
    bench.store.send(run, token="u", seen=1, cancels=["a"])
    hedges.pass_time()
    assert "tw" not in bench.record("a", "run")
    hedges.commit(first, "REVOKED")


def test_one_that_waits_in_a_line_ends_when_the_first_has_answered(bench: Bench, hedges: Hedges) -> None:
    first = hedges.begin("a")
    limit = Admission(gates=[rate_wish("one", in_flight=1)])
    assert bench.store.admit(first, limit, token="t").verdict == "go"
    got = hedges.hedge("a")
    assert bench.store.admit(got.holder, limit, token="u").verdict == "waits"
    hedges.commit(first, "SUCCESS", settles={"ok": 1})
    hedges.end(got.holder.id, "w2")
    (gate,) = bench.store.gates()
    assert (gate.in_flight, gate.waiting) == (0, 0)


def test_a_first_that_waits_for_its_next_try_ends_when_the_second_has_answered(bench: Bench, hedges: Hedges) -> None:
    first = hedges.begin("a")
    got = hedges.hedge("a")
    bench.again(first, due_ms=bench.store.now_ms() + 3_600_000)
    hedges.commit(got.holder, "SUCCESS", also="a", value=4)
    hedges.end("a")
    assert hedges.result("a")["result"] == 4


def test_a_plain_run_goes_on_behind_the_one_that_has_answered(bench: Bench, hedges: Hedges) -> None:
    first = hedges.begin("a")
    got = hedges.hedge("a")
    behind = bench.step("behind", root="a")
    hedges.commit(got.holder, "SUCCESS", also="a", offers=[behind])
    taken = bench.take_one("w2")
    assert (taken.holder.id, taken.cancelled) == ("behind", False)
    hedges.commit(first, "REVOKED")
    bench.finish(taken.holder)


def test_it_counts_on_the_budget_and_is_not_started_without_room(bench: Bench, hedges: Hedges) -> None:
    run = bench.run_agent(budget={"steps": 3})
    ours = {"bg": TREE, "dp": 1}
    offers = [hedges.step(name, root="run", parent="run", ask=name, accounts=TREE, ours=ours) for name in "ab"]
    bench.store.send(run, token="t", seen=1, offers=offers, accounts=TREE)
    for got in bench.take("w1", slots=2):
        assert got.holder.id in "ab"
    bench.client.hset(bench.keys.worker("w2"), "slots", 8)
    hedges.pass_time()
    assert bench.take_one("w2").message["headers"]["agentq"]["hd"] in "ab"
    hedges.pass_time()
    assert bench.store.tree("run")["n_steps"] == 3
    assert sum("tw" in bench.record(name, "run") for name in "ab") == 1


def test_a_dead_second_does_not_hold_the_first(bench: Bench, hedges: Hedges) -> None:
    first = hedges.begin("a")
    got = hedges.hedge("a")
    bench.kill("w2")
    hedges.commit(first, "SUCCESS", value=9)
    bench.worker("w3")
    hedges.end(got.holder.id, "w3")
    assert hedges.result("a")["result"] == 9


def test_a_first_among_the_dead_letters_lets_a_failure_be_the_answer(bench: Bench, hedges: Hedges) -> None:
    first = hedges.begin("a")
    got = hedges.hedge("a")
    bench.store.condemn(first.worker, first.take, why="unreadable", words="by hand")
    hedges.fail(got.holder, also="a")
    assert hedges.result("a")["status"] == "FAILURE"


def test_a_replaced_first_goes_on_alone(bench: Bench, hedges: Hedges) -> None:
    first = hedges.begin("a")
    got = hedges.hedge("a")
    bench.store.commit(first, mode="replaced", status="RETRY", offers=[hedges.step("a")])
    assert bench.store.recalled([got.holder]) == ["not wanted"]
    hedges.commit(got.holder, "REVOKED", also="a")
    assert hedges.result("a") == {}


def slow(bench: Bench, hedges: Hedges, name: str, took: int, hedge: str = "p95") -> None:
    """A step that has taken so many ms."""
    holder = hedges.begin(name, hedge=hedge)
    bench.client.hset(bench.keys.step(name, name), "b", bench.store.now_ms() - took)
    bench.finish(holder)


def after(bench: Bench, hedges: Hedges, hedge: str = "p95") -> int | None:
    """After how many ms one more would be slow."""
    holder = hedges.begin("probe", hedge=hedge)
    found = hedges.client.zscore(hedges.keys.of("hedges"), f"probe|probe|{bench.generation('probe')}")
    began = int(bench.record("probe")["b"])
    bench.store.commit(holder, mode="done", status="FAILURE")
    return int(found) - began if found is not None else None


def test_a_quantile_is_learned_from_the_times_that_a_step_takes(bench: Bench, hedges: Hedges) -> None:
    for number in range(19):
        slow(bench, hedges, f"s{number}", 1000)
    assert after(bench, hedges) is None, "of nineteen none is the slowest twentieth"
    bench.client.delete(bench.keys.step("probe", "probe"))
    slow(bench, hedges, "s19", 20_000)
    found = after(bench, hedges)
    assert found is not None
    assert 1000 <= found < 10_000, "the nineteenth of twenty"


def test_what_a_hedge_has_cut_short_counts_as_slow(bench: Bench, hedges: Hedges) -> None:
    first = hedges.begin("a", hedge="p95")
    bench.client.zadd(bench.keys.of("hedges"), {"a|a|1": LONG_AGO})
    bench.tick()
    got = bench.take_one("w2")
    bench.client.hset(bench.keys.step("a", "a"), "b", bench.store.now_ms() - 5000)
    hedges.commit(got.holder, "SUCCESS", also="a")
    hedges.commit(first, "REVOKED")
    (digest,) = [parts[0] for parts in bench.look().parts("spans")]
    times = {
        int(name): int(n) for name, n in hedges.client.hgetall(bench.keys.of("spans", digest)).items() if name != b"n"
    }
    assert sum(times.values()) == 2
    assert max(times) == 98, "2 ** (98 / 8) ms are 4.9 s"


def test_old_times_are_forgotten(bench: Bench, hedges: Hedges) -> None:
    slow(bench, hedges, "a", 1000)
    (digest,) = [parts[0] for parts in bench.look().parts("spans")]
    key = bench.keys.of("spans", digest)
    bench.client.hset(key, mapping={"80": 1000, "n": 1000})
    slow(bench, hedges, "b", 100_000)
    assert int(bench.client.hget(key, "n")) == 500
    assert bench.without_end("spans") == []


# -- each rule is needed


@pytest.fixture
def broken(clean_server: PrivateServer) -> Iterator[Bench]:
    """A bench without the checks at the end: what lacks a rule need not come to rest."""
    made = Bench(clean_server)
    made.worker("w1")
    made.worker("w2")
    yield made
    made.client.flushall()
    made.store.close()


NOTICED_BY: dict[str, Callable[[Bench, Hedges], None]] = {
    "take it where the first runs": test_a_slow_step_gets_a_second_one_elsewhere,
    "start it on a busy pool": test_where_steps_wait_for_a_worker_no_second_one_is_started,
    "start it without a free place": test_where_no_other_worker_is_free_none_is_started,
    "answer twice": test_the_second_answers_for_both,
    "answer with a failure": lambda bench, hedges: test_a_failure_is_no_answer_while_the_other_runs(
        bench, hedges, "first"
    ),
    "never answer with a failure": lambda bench, hedges: test_when_both_fail_the_last_one_answers(
        bench, hedges, "first"
    ),
    "leave the loser running": test_the_first_answers_and_the_second_ends,
    "let the loser wait": test_a_first_that_waits_for_its_next_try_ends_when_the_second_has_answered,
    "charge the loser nothing": test_the_second_answers_for_both,
    "let both arrive": lambda bench, hedges: test_a_failure_is_no_answer_while_the_other_runs(bench, hedges, "second"),
    "delete what the other still needs": test_a_failed_first_leaves_its_arguments_to_the_second,
    "start it beyond the budget": test_it_counts_on_the_budget_and_is_not_started_without_room,
    "start it for the cancelled": test_a_cancelled_step_gets_none,
    "let it outlive a cancel": test_a_cancelled_run_has_neither,
    "keep its timer": test_a_fast_step_gets_none,
    "hedge the old generation": test_the_time_of_an_earlier_attempt_counts_for_nothing,
}


@pytest.mark.parametrize("name", sorted(HEDGE_RULES))
def test_a_missing_rule_is_noticed(broken: Bench, name: str) -> None:
    break_rule(broken, *HEDGE_RULES[name])
    with pytest.raises((AssertionError, KeyError, ValueError)):
        NOTICED_BY[name](broken, Hedges(broken))
