"""Dead letters and deferred messages: nothing is thrown away, each is replayed or dropped once."""

from __future__ import annotations

import json

import pytest

from agentq.core.errors import CalledOff, StaleHolder
from agentq.store.letters import Claimed
from agentq.store.refs import Holder
from tests.store.bench import LONG_AGO, Bench

RAW = b'\x00 no "message\n\xff'


def condemned(bench: Bench, step_id: str = "s0", **options: object) -> Holder:
    """Have a step condemned as unreadable and return who held it last."""
    bench.store.offer([bench.step(step_id, **options)])  # type: ignore[arg-type]
    holder = bench.take_one("w1").holder
    assert bench.store.condemn("w1", holder.take, why="unreadable", words="its body cannot be decoded")
    return holder


def put(bench: Bench, raw: bytes) -> int:
    """Put a raw message into the lane, take it, and return the take's number."""
    bench.client.lpush(bench.keys.lane("q", 6), raw)
    reply = bench.take_reply("w1")
    assert reply.taken[0].message == raw
    return reply.taken[0].take


def drop(bench: Bench, letter_id: str, *, status: str = "FAILURE") -> None:
    """Give a condemned step up, as the engine does."""
    claimed = bench.store.drop_letter(letter_id, label="test")
    assert isinstance(claimed, Claimed)
    bench.store.commit(claimed.holder, mode="done", status=status)
    bench.store.leave(claimed.holder.worker)


class TestCondemned:
    def test_what_cannot_be_read_is_kept_byte_for_byte(self, bench: Bench) -> None:
        bench.store.condemn("w1", put(bench, RAW), why="unreadable", words="no JSON")
        (letter,) = bench.store.letters()
        assert (letter.why, letter.words, letter.queue, letter.priority) == ("unreadable", "no JSON", "q", "normal")
        assert (letter.step_id, letter.bytes) == (None, len(RAW))
        assert bench.store.letter(letter.letter_id) == (letter, RAW)
        assert bench.client.hlen(bench.keys.held("w1")) == 0
        assert bench.store.drop_letter(letter.letter_id, label="x") == "dropped"
        assert bench.store.drop_letter(letter.letter_id, label="x") == "unknown"
        assert bench.store.letters() == []

    def test_what_no_worker_holds_is_shelved_once_per_token(self, bench: Bench) -> None:
        for _ in range(2):
            bench.store.shelve(RAW, queue="q", lane=3, words="no JSON", token="t")
        (letter,) = bench.store.letters()
        assert (letter.why, letter.words, letter.queue, letter.priority) == ("unreadable", "no JSON", "q", "high")
        assert bench.store.letter(letter.letter_id) == (letter, RAW)
        assert bench.store.replay(letter.letter_id) == "replayed"
        bench.store.shelve(RAW, queue="q", lane=3, words="no JSON", token="t")
        assert bench.store.letters() == []
        assert bench.client.rpop(bench.keys.lane("q", 3)) == RAW

    def test_two_of_the_same_text_are_two_letters(self, bench: Bench) -> None:
        for _ in range(2):
            bench.store.condemn("w1", put(bench, RAW), why="unreadable", words="no JSON")
        assert bench.store.count_letters() == 2
        for letter in bench.store.letters():
            bench.store.drop_letter(letter.letter_id, label="x")

    def test_a_step_is_held_with_its_run(self, bench: Bench) -> None:
        condemned(bench)
        assert bench.state("s0") == "x"
        assert bench.client.ttl(bench.keys.step("s0", "s0")) == -1
        (letter,) = bench.store.letters()
        assert (letter.letter_id, letter.step_id, letter.root_id, letter.name) == ("s0", "s0", "s0", "read")
        drop(bench, "s0")

    def test_only_its_holder_condemns(self, bench: Bench) -> None:
        holder = condemned(bench)
        assert not bench.store.condemn("w1", holder.take, why="unreadable", words="again")
        assert not bench.store.condemn("w2", 1, why="unreadable", words="x")
        assert bench.store.letters()[0].words == "its body cannot be decoded"
        drop(bench, "s0")

    def test_asked_again_the_answer_is_the_same(self, bench: Bench) -> None:
        """The reply may be lost: who asks again is no stale holder."""
        bench.store.offer([bench.step("s0")])
        holder = bench.take_one("w1").holder

        def condemns(by: Holder, why: str = "undo failed") -> bool:
            return bench.store.condemn(by.worker, by.take, why=why, words="x", holder=by)

        assert [condemns(holder), condemns(holder)] == [True, True]
        assert not condemns(holder._replace(take=holder.take + 1))
        assert not condemns(holder._replace(worker="w2"))
        assert not condemns(holder, "poison"), "this was another's doing"
        assert len(bench.store.letters()) == 1
        drop(bench, "s0")

    def test_who_held_it_can_write_nothing(self, bench: Bench) -> None:
        holder = condemned(bench)
        with pytest.raises(StaleHolder):
            bench.finish(holder)
        drop(bench, "s0")


class TestReplay:
    def test_a_step_is_taken_again_with_its_deaths_forgotten(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s0")])
        for _ in range(3):
            bench.store.requeue("w1", bench.take_one("w1").holder.take, lost=True)
        assert bench.store.replay("s0") == "replayed"
        assert bench.store.letters() == []
        got = bench.take_one("w2", idle=False)
        assert got.message["headers"] == {"id": "s0", "redelivered": True}
        bench.store.requeue("w2", got.holder.take, lost=True)
        assert bench.suspects() == ["s0"]

    def test_condemned_again_at_once_it_is_kept_as_long_as_before(self, bench: Bench) -> None:
        condemned(bench)
        bench.store.replay("s0")
        bench.store.condemn("w2", bench.take_one("w2").holder.take, why="unreadable", words="again")
        assert bench.client.ttl(bench.keys.of("letter", "s0")) == -1
        drop(bench, "s0")

    def test_twice_is_once(self, bench: Bench) -> None:
        condemned(bench)
        assert [bench.store.replay("s0"), bench.store.replay("s0")] == ["replayed", "unknown"]
        assert len(bench.lane()) == 1

    def test_a_raw_message_goes_back_as_it_came(self, bench: Bench) -> None:
        bench.store.condemn("w1", put(bench, RAW), why="unreadable", words="no JSON")
        (letter,) = bench.store.letters()
        assert bench.store.replay(letter.letter_id) == "replayed"
        (again,) = bench.take_reply("w2").taken
        assert again.message == RAW
        bench.store.drop("w2", again.take)

    def test_one_that_there_is_not(self, bench: Bench) -> None:
        assert bench.store.replay("nothing") == "unknown"
        assert bench.store.letter("nothing") is None

    def test_its_lane_is_its_own(self, bench: Bench) -> None:
        condemned(bench, lane=0)
        bench.store.replay("s0")
        assert len(bench.lane(lane=0)) == 1


class TestDrop:
    def test_the_failure_goes_the_way_of_every_failure(self, bench: Bench) -> None:
        run = bench.run_agent("run")
        bench.store.send(run, token="t", seen=1, offers=[bench.step("s0", root="run", parent="run", ask="s0")])
        bench.store.park(run, seen=1, due_ms=None)
        holder = bench.take_one("w1").holder
        bench.store.condemn("w1", holder.take, why="unreadable", words="x")
        claimed = bench.store.drop_letter("s0", label="me")
        assert isinstance(claimed, Claimed)
        entry = json.dumps({"k": "result", "id": "s0", "s": "error", "v": {}})
        bench.store.commit(claimed.holder, mode="done", status="FAILURE", entry=entry)
        bench.store.leave(claimed.holder.worker)
        assert bench.kinds("run") == ["start", "result"]
        assert bench.store.letters() == []
        assert not bench.client.exists(bench.keys.of("letter", "s0"))

    def test_if_who_drops_it_dies_the_letter_stands_as_before(self, bench: Bench) -> None:
        condemned(bench)
        claimed = bench.store.drop_letter("s0", label="me")
        assert isinstance(claimed, Claimed)
        bench.kill(claimed.holder.worker)
        assert bench.state("s0") == "x"
        assert bench.store.count_letters() == 1
        with pytest.raises(StaleHolder):
            bench.finish(claimed.holder)
        drop(bench, "s0")

    def test_two_cannot_drop_it_at_once_nor_replay_what_is_dropped(self, bench: Bench) -> None:
        condemned(bench)
        claimed = bench.store.drop_letter("s0", label="me")
        assert isinstance(claimed, Claimed)
        assert bench.store.drop_letter("s0", label="other") == "busy"
        assert bench.store.replay("s0") == "busy"
        bench.store.leave(claimed.holder.worker)
        drop(bench, "s0")

    def test_a_step_of_a_cancelled_run_goes_by_itself(self, bench: Bench) -> None:
        self.condemn_child(bench, "poison")
        bench.tick()
        assert bench.state("s0", "run") == "x"
        bench.store.cancel("run", "run", "enough")
        bench.tick()
        assert bench.take_one("w2").cancelled
        assert bench.store.letters() == []

    def test_a_step_of_a_cancelled_run_that_nobody_can_read_is_not_offered_again(self, bench: Bench) -> None:
        self.condemn_child(bench, "unreadable")
        bench.store.cancel("run", "run", "enough")
        bench.tick()
        assert bench.state("s0", "run") == "x"
        drop(bench, "s0", status="REVOKED")

    def condemn_child(self, bench: Bench, why: str) -> None:
        run = bench.run_agent("run")
        bench.store.send(run, token="t", seen=1, offers=[bench.step("s0", root="run", parent="run", ask="s0")])
        bench.store.condemn("w1", bench.take_one("w1").holder.take, why=why, words="x")

    def test_a_cancelled_agent_whose_turns_died_is_left_to_its_taker_to_end(self, bench: Bench) -> None:
        bench.store.offer([bench.agent("run")])
        for _ in range(3):
            bench.store.requeue("w1", bench.take_one("w1").holder.take, lost=True)
        bench.tick()
        assert bench.state("run") == "x"
        bench.store.cancel("run", "run", "enough")
        bench.tick()
        got = bench.take_one("w2")
        assert got.cancelled
        with pytest.raises(CalledOff):
            bench.finish(got.holder)
        bench.finish(got.holder, status="REVOKED")
        assert (bench.record("run")["o"], bench.record("run").get("gu")) == ("REVOKED", None)
        assert bench.store.letters() == []

    def test_a_cancelled_agent_that_nobody_can_read_is_not_offered_again(self, bench: Bench) -> None:
        holder = bench.run_agent("run")
        bench.store.condemn("w1", holder.take, why="unreadable", words="x")
        bench.store.cancel("run", "run", "enough")
        bench.tick()
        assert bench.state("run") == "x"
        drop(bench, "run")


class TestDeferred:
    def defer(self, bench: Bench, lacks: str = "task", longest_ms: int = 60_000, *, nowhere: bool = False) -> str:
        holder = bench.take_one("w1").holder
        return bench.store.defer(
            "w1",
            holder.take,
            lacks=lacks,  # type: ignore[arg-type]
            words="nobody knows it",
            pause_ms=5_000,
            longest_ms=longest_ms,
            nowhere=nowhere,
        )

    def pause_of(self, bench: Bench) -> int:
        ((_, due),) = bench.client.zrange(bench.keys.of("due"), 0, -1, withscores=True)
        return int(due) - bench.store.now_ms()

    def age(self, bench: Bench, ms: int) -> None:
        """Have the step be unserved since so long."""
        at, _since, rest = bench.record("s0")["un"].split("|", 2)
        bench.client.hset(bench.keys.step("s0", "s0"), "un", f"{at}|{bench.store.now_ms() - ms}|{rest}")

    def test_it_comes_again_after_a_pause_and_counts_as_no_start(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s0")])
        assert self.defer(bench) == "deferred"
        assert (bench.state("s0"), bench.record("s0")["a"]) == ("l", "0")
        assert 4_000 < self.pause_of(bench) <= 5_000
        bench.fire_timers()
        assert bench.take_one("w2").generation == 2

    def test_the_pause_grows_with_the_time(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s0")])
        self.defer(bench, "version")
        for age, pause in ((20_000, 10_000), (3_600_000, 60_000)):
            self.age(bench, age)
            bench.fire_timers()
            assert self.defer(bench, "version") == "deferred"
            assert abs(self.pause_of(bench) - pause) < 1_500

    def test_an_unknown_task_is_condemned_after_the_grace(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s0")])
        self.defer(bench)
        self.age(bench, 600_001)
        bench.fire_timers()
        assert self.defer(bench) == "condemned"
        (letter,) = bench.store.letters()
        assert (letter.why, letter.words) == ("unknown task", "nobody knows it")
        bench.store.replay("s0")

    def test_a_version_never_is(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s0")])
        self.defer(bench, "version")
        self.age(bench, 10**9)
        bench.fire_timers()
        assert self.defer(bench, "version") == "deferred"
        assert bench.store.letters() == []

    def test_a_cancelled_run_whose_version_is_gone_is_left_to_its_taker_to_end(self, bench: Bench) -> None:
        bench.store.offer([bench.agent("s0")])
        bench.store.cancel("s0", "s0", "enough")
        assert self.defer(bench, "version", nowhere=True) == "deferred"
        bench.fire_timers()
        self.age(bench, 590_000)
        assert self.defer(bench, "version", nowhere=True) == "deferred"
        bench.fire_timers()
        self.age(bench, 600_001)
        assert self.defer(bench, "version") == "deferred", "it is served elsewhere"
        bench.fire_timers()
        assert self.defer(bench, "version", nowhere=True) == "given up"
        record = bench.record("s0")
        bench.finish(Holder("s0", "s0", record["w"], int(record["t"])), status="REVOKED")
        assert bench.client.zcard(bench.keys.of("unserved")) == 0

    def test_an_attempt_in_between_begins_the_grace_anew(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s0")])
        self.defer(bench)
        self.age(bench, 600_001)
        bench.fire_timers()
        bench.again(bench.take_one("w2").holder)
        assert self.defer(bench) == "deferred"

    def test_it_is_listed_until_it_goes_on(self, bench: Bench) -> None:
        bench.store.offer([bench.agent("s0")])
        self.defer(bench, "version")
        (unserved,) = bench.store.unserved()
        assert (unserved.run_id, unserved.lacks, unserved.version) == ("s0", "version", "1")
        summary = bench.store.run("s0")
        assert summary is not None
        assert summary.status == "unschedulable"
        bench.fire_timers()
        holder = bench.take_one("w2").holder
        bench.store.park(holder, seen=1, due_ms=None)
        assert bench.store.unserved() == []
        assert bench.client.zcard(bench.keys.of("unserved")) == 0

    def test_a_suspect_stays_one(self, bench: Bench) -> None:
        bench.store.offer([bench.step("s0")])
        bench.store.requeue("w1", bench.take_one("w1").holder.take, lost=True)
        self.defer(bench)
        bench.fire_timers()
        assert bench.suspects() == ["s0"]

    def test_a_plain_message_waits_too_and_keeps_its_text(self, bench: Bench) -> None:
        raw = b'{"body":"x","headers":{"task":"later"}}'
        take = put(bench, raw)
        options = {"words": "nobody knows it", "pause_ms": 5_000, "longest_ms": 5_000}
        assert bench.store.defer("w1", take, lacks="task", **options) == "deferred"  # type: ignore[arg-type]
        assert bench.store.letters() == []
        bench.client.zadd(
            bench.keys.of("due"), dict.fromkeys(bench.client.zrange(bench.keys.of("due"), 0, -1), LONG_AGO)
        )
        assert bench.tick().due == 1
        (again,) = bench.take_reply("w1").taken
        document = json.loads(again.message)
        assert abs(document.pop("agentq_unserved") - bench.store.now_ms()) < 10_000
        assert document == json.loads(raw)
        old = again.message.replace(str(json.loads(again.message)["agentq_unserved"]).encode(), b"1000")
        bench.client.hset(bench.keys.held("w1"), str(again.take), b"6\n1\nq\n" + old)
        assert bench.store.defer("w1", again.take, lacks="task", **options) == "condemned"  # type: ignore[arg-type]
        (letter,) = bench.store.letters()
        assert bench.store.letter(letter.letter_id) == (letter, raw)
        bench.store.drop_letter(letter.letter_id, label="x")

    def test_what_is_not_held_is_not_deferred(self, bench: Bench) -> None:
        assert bench.store.defer("w1", 7, lacks="task", words="x", pause_ms=1, longest_ms=1) == "gone"

    def test_a_worker_that_comes_with_the_code_is_offered_it_at_once(self, bench: Bench) -> None:
        bench.store.offer([bench.agent("s0")])
        self.defer(bench, "version")
        assert bench.store.hasten(lambda each: each.version == "2") == 0
        assert self.pause_of(bench) > 3_000
        assert bench.store.hasten(lambda each: (each.name, each.version) == ("research", "1")) == 1
        assert bench.tick().due == 1
        assert bench.take_one("w2").holder.id == "s0"
        assert bench.store.hasten(lambda _each: True) == 0
