"""What listings and handles read."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from agentq.core.errors import StoreUnavailable
from agentq.store import Store
from agentq.store.reading import final
from agentq.store.refs import Holder
from tests.store.bench import LEASE_MS, Bench, meta


@pytest.fixture
def run(bench: Bench) -> Holder:
    return bench.run_agent("run", lane=3, card={"tenant": "acme", "key": "k"})


class TestRuns:
    def test_a_summary_says_what_the_record_says(self, bench: Bench, run: Holder) -> None:
        summary = bench.store.run("run")
        assert summary is not None
        assert (summary.agent, summary.status, summary.tenant, summary.key) == ("research", "running", "acme", "k")
        assert (summary.priority, summary.version, summary.finished_at) == ("high", "1", None)

    @pytest.mark.parametrize(
        ("status", "shown"), [("SUCCESS", "succeeded"), ("FAILURE", "failed"), ("REVOKED", "cancelled")]
    )
    def test_an_ended_run_shows_how(self, bench: Bench, run: Holder, status: str, shown: str) -> None:
        bench.finish(run, status=status)
        summary = bench.store.run("run")
        assert summary is not None
        assert summary.status == shown
        assert summary.started_at is not None
        assert summary.finished_at is not None
        assert summary.finished_at >= summary.started_at

    def test_an_unknown_run_is_none(self, bench: Bench) -> None:
        assert bench.store.run("x*[]?\\") is None
        assert bench.store.root_of("x") is None

    def test_a_child_run_is_found_by_its_own_id(self, bench: Bench, run: Holder) -> None:
        child = bench.agent("sub", root="run", parent="run", ask="sub")
        bench.store.send(run, token="t", seen=1, offers=[child])
        assert bench.store.root_of("sub") == "run"
        found = bench.store.run("sub")
        assert found is not None
        assert found.parent_id == "run"

    def test_runs_are_listed_newest_first_and_filtered(self, bench: Bench) -> None:
        for number in range(5):
            bench.store.offer([bench.agent(f"r{number}", name=f"agent{number % 2}")])
            bench.client.zadd(bench.keys.of("runs"), {f"r{number}|r{number}": number})
        assert [found.run_id for found in bench.store.runs()] == ["r4", "r3", "r2", "r1", "r0"]
        assert [found.run_id for found in bench.store.runs(limit=2)] == ["r4", "r3"]
        assert [found.run_id for found in bench.store.runs(agent="agent1")] == ["r3", "r1"]
        bench.finish(bench.take_one().holder)
        assert [found.run_id for found in bench.store.runs(status="succeeded")] == ["r0"]
        assert len(bench.store.runs(status="queued")) == 4

    def test_runs_whose_retention_has_ended_are_forgotten(self, bench: Bench) -> None:
        for number in range(250):
            bench.client.zadd(bench.keys.of("runs"), {f"gone{number}|gone{number}": number})
        bench.store.offer([bench.agent("r")])
        assert [found.run_id for found in bench.store.runs()] == ["r"]
        assert bench.client.zcard(bench.keys.of("runs")) == 1

    def test_a_run_is_listed_with_its_priority(self, bench: Bench) -> None:
        bench.store.offer([bench.agent("urgent", lane=3), bench.agent("later", lane=9)])
        assert {found.run_id: found.priority for found in bench.store.runs()} == {"urgent": "high", "later": "low"}

    def test_history_is_told_in_whole_words(self, bench: Bench) -> None:
        bench.store.offer([bench.agent("run")])
        bench.finish(bench.take_one().holder)
        told = [(event.kind, event.fields) for event in bench.store.events("run")]
        assert told == [
            ("queued", {"queue": "q"}),
            ("started", {"attempt": 1}),
            ("finished", {"attempt": 1, "outcome": "succeeded"}),
        ]

    def test_roots_may_be_listed_alone(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, offers=[bench.agent("sub", root="run", parent="run", ask="sub")])
        assert [found.run_id for found in bench.store.runs(roots_only=True)] == ["run"]

    def test_a_root_that_was_taken_has_begun(self, bench: Bench) -> None:
        bench.store.offer([bench.agent("run")])
        assert not bench.store.is_begun("run")
        holder = bench.take_one().holder
        assert bench.store.is_begun("run")
        bench.store.park(holder, seen=1, due_ms=None)
        assert bench.store.is_begun("run")
        assert not bench.store.is_begun("x")

    def test_members_are_listed_in_the_order_of_their_making(self, bench: Bench, run: Holder) -> None:
        offers = [bench.step(name, root="run", parent="run", ask=name) for name in ("b", "a")]
        bench.store.send(run, token="t", seen=1, offers=offers, questions=['{"id":"q1","run":"run","q":"?"}'])
        assert bench.store.member_ids("run") == ["run", "b", "a"]
        assert [record.get("nm") for record in bench.store.records("run", ["a", "x"])] == ["read", None]
        assert bench.store.records("run", []) == []


class TestOutcomes:
    def test_outcomes_come_in_order_with_gaps(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s1")])
        bench.finish(bench.take_one().holder)
        assert bench.store.outcomes([]) == []
        first, second = bench.store.outcomes(["x", "s1"])
        assert first is None
        assert json.loads(second or b"")["status"] == "SUCCESS"

    def test_a_state_that_is_no_outcome_is_passed_over(self, bench: Bench) -> None:
        assert final(None) is None
        for status in ("RETRY", "STARTED", "PROGRESS", "PENDING"):
            assert final(meta("s1", status=status).encode()) is None
        assert final(meta("s1", status="REVOKED").encode()) is not None

    def test_a_wait_ends_with_the_outcome_or_with_its_time(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s1")])
        holder = bench.take_one().holder
        assert bench.store.wait_outcome("s1", 0.01) is None
        other = Bench.__new__(Bench)
        other.store = Store(bench.store.url)
        thread = threading.Thread(target=lambda: other.finish(holder))
        thread.start()
        found = bench.store.wait_outcome("s1", 30)
        thread.join()
        other.store.close()
        assert found is not None
        assert found["status"] == "SUCCESS"

    def test_the_same_without_blocking_a_loop(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s1")])
        holder = bench.take_one().holder

        async def wait() -> object:
            assert await bench.store.await_outcome("s1", 0.01) is None
            waiting = asyncio.ensure_future(bench.store.await_outcome("s1", 30))
            await asyncio.to_thread(bench.finish, holder)
            return await waiting

        found = asyncio.run(wait())
        assert isinstance(found, dict)

    def test_a_server_that_is_away_has_a_name_and_no_password(self) -> None:
        store = Store("redis://user:secret@127.0.0.1:1/0")
        store.client.connection_pool.connection_kwargs["retry"] = None
        with pytest.raises(StoreUnavailable) as raised:
            store.run("x")
        assert "secret" not in str(raised.value) + repr(store)
        assert "127.0.0.1" in str(raised.value)


class TestAsks:
    def test_an_ask_is_found_while_it_is_open_and_after_it_was_decided(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, questions=['{"id":"a1","run":"run","q":"?"}'])
        states = []
        for _ in range(2):
            found = bench.store.ask("a1")
            assert found is not None
            assert found[0] == "run"
            states.append((found[1].state, found[1].answer, found[1].answered_by))
            bench.store.answer("run", "a1", "[1]", by="ann")
        assert states == [("open", None, None), ("answered", [1], "ann")]

    @pytest.mark.parametrize("name", ["x", "a*", "[a]", "\\"])
    def test_an_unknown_ask_is_none(self, bench: Bench, run: Holder, name: str) -> None:
        bench.store.send(run, token="t", seen=1, questions=['{"id":"a1","run":"run","q":"?"}'])
        bench.store.answer("run", "a1", "1", by="ann")
        assert bench.store.ask(name) is None

    def test_asks_are_listed_by_run_and_oldest_first(self, bench: Bench, run: Holder) -> None:
        cards = [json.dumps({"id": name, "run": "run", "q": name}) for name in ("b", "a")]
        for number, card in enumerate(cards):
            bench.store.send(run, token=f"t{number}", seen=1, questions=[card])
        bench.client.zadd(bench.keys.of("asks"), {"run|b": 1, "run|a": 2})
        assert [ask.ask_id for ask in bench.store.asks(run_id="run")] == ["b", "a"]
        assert bench.store.asks(run_id="other") == []


class TestWorkers:
    def test_cards_tell_what_a_worker_serves_and_holds(self, bench: Bench) -> None:
        bench.store.enroll("w9", label="node", queues=("a", "b"), concurrency=4, lease_ms=LEASE_MS, details={"pid": 1})
        bench.store.offer([bench.step("s1")])
        bench.take("w9")
        (card,) = [card for card in bench.store.workers() if card.id == "w9"]
        assert (card.label, card.queues, card.concurrency, card.held) == ("node", ("a", "b"), 4, 1)
        assert card.details == {"pid": 1}
        assert 0 < card.lease_ms <= LEASE_MS

    def test_a_worker_whose_lease_ran_out_is_not_listed(self, bench: Bench) -> None:
        bench.expire_lease("w1")
        assert [card.id for card in bench.store.workers()] == ["w2"]

    def test_a_renewal_may_change_the_queues(self, bench: Bench) -> None:
        assert bench.store.renew("w1", LEASE_MS, queues=("x",)) == "alive"
        assert [card.queues for card in bench.store.workers() if card.id == "w1"] == [("x",)]

    def test_nobody_renews_who_never_enrolled(self, bench: Bench) -> None:
        assert bench.store.renew("stranger", LEASE_MS) == "unknown"

    def test_announcements_are_kept_by_name(self, bench: Bench) -> None:
        bench.store.announce("w1", {})
        bench.store.announce("w1", {"research": {"version": "1", "schema": {"required": []}}})
        assert bench.store.announced()["research"] == {"version": "1", "schema": {"required": []}, "worker": "w1"}

    def test_waiting_counts_by_lane(self, bench: Bench) -> None:
        bench.store.offer([bench.step(lane=0), bench.step(lane=9), bench.step(lane=9)])
        assert bench.store.waiting("q") == {"critical": 1, "high": 0, "normal": 0, "low": 2}
