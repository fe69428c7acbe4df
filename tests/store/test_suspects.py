"""Suspects and poison: a step whose attempt died runs apart, and the one that kills again is condemned alone."""

from __future__ import annotations

import pytest

from agentq.store.refs import TakeReply
from tests.store.bench import Bench, break_rule, gots


def offered(bench: Bench, number: int) -> list[str]:
    names = [f"s{at}" for at in range(number)]
    bench.store.offer([bench.step(name) for name in names])
    return names


def killed(bench: Bench, number: int, worker: str = "w1") -> list[str]:
    """Have that many steps die together."""
    names = offered(bench, number)
    bench.take(worker, slots=number)
    bench.kill(worker)
    return names


def took(reply: TakeReply) -> int:
    return len(reply.taken)


def wait_long(bench: Bench, queue: str = "q") -> None:
    """Have all suspects wait since long ago."""
    key = bench.keys.of("suspects", queue)
    for at, entry in enumerate(bench.client.lrange(key, 0, -1)):
        bench.client.lset(key, at, b"1" + entry[entry.index(b"\n") :])


class TestApart:
    def test_only_an_idle_worker_takes_a_suspect(self, bench: Bench) -> None:
        killed(bench, 1)
        assert bench.take("w2", idle=False) == []
        assert [got.holder.id for got in bench.take("w2")] == ["s0"]

    def test_nothing_else_is_taken_beside_it(self, bench: Bench) -> None:
        killed(bench, 1)
        bench.store.offer([bench.step("other")])
        reply = bench.take_reply("w2", slots=5)
        assert (took(reply), reply.rest, reply.taken[0].suspect) == (1, True, True)
        assert took(bench.take_reply("w2", slots=5, idle=False)) == 0
        # Also not, if the worker should forget what it was told.
        assert took(bench.take_reply("w2", slots=5)) == 0
        assert bench.state("other") == "q"

    def test_one_whose_run_stands_still_keeps_nothing_out(self, bench: Bench) -> None:
        bench.store.offer([bench.agent("r")])
        bench.take_one("w1")
        bench.kill("w1")
        bench.store.stop("r", "r", "why", rule="person")
        bench.store.offer([bench.step("other")])
        reply = bench.take_reply("w2", slots=5)
        assert ([got.holder.id for got in gots("w2", reply)], reply.rest) == (["other"], False)
        assert bench.state("r") == "l"

    def test_when_it_has_ended_the_worker_takes_as_before(self, bench: Bench) -> None:
        killed(bench, 1)
        bench.store.offer([bench.step("a"), bench.step("b")])
        bench.finish(bench.take_one("w2", slots=5).holder)
        assert [got.holder.id for got in bench.take("w2", slots=5)] == ["a", "b"]

    def test_the_same_token_gets_the_same_reply(self, bench: Bench) -> None:
        killed(bench, 1)
        first = bench.take_reply("w2", token="t")
        assert bench.take_reply("w2", token="t") == first
        assert first.taken[0].suspect

    def test_a_hand_back_leaves_it_a_suspect(self, bench: Bench) -> None:
        killed(bench, 1)
        bench.store.requeue("w2", bench.take_one("w2").holder.take)
        assert bench.suspects() == ["s0"]
        assert bench.record("s0")["d"] == "1"

    def test_a_timer_leaves_it_a_suspect(self, bench: Bench) -> None:
        killed(bench, 1)
        holder = bench.take_one("w2").holder
        bench.client.hset(bench.keys.step("s0", "s0"), mapping={"s": "l", "d": 1})
        bench.client.set(bench.keys.of("message", "s0", "s0"), '{"body":1}')
        bench.client.hdel(bench.keys.held("w2"), str(holder.take))
        bench.client.zadd(bench.keys.of("due"), {f"s0|s0|{bench.generation('s0')}": 1})
        bench.tick()
        assert bench.suspects() == ["s0"]

    def test_a_commit_clears_it(self, bench: Bench) -> None:
        killed(bench, 1)
        bench.again(bench.take_one("w2").holder)
        assert bench.suspects() == []
        assert bench.take_one("w2", idle=False).holder.id == "s0"

    def test_what_an_agent_has_sent_clears_it(self, bench: Bench) -> None:
        run = bench.run_agent("run")
        bench.kill("w1")
        run = bench.take_one("w2").holder
        bench.store.send(run, token="t", seen=1, asks=['{"k":"ask"}'])
        assert bench.record("run")["d"] == "0"

    def test_a_lane_of_another_queue_is_not_looked_at_either(self, bench: Bench) -> None:
        killed(bench, 1)
        bench.store.offer([bench.step("other", queue="q2")])
        assert [got.holder.id for got in bench.take("w2", slots=3, queues=("q2", "q"))] == ["s0"]

    def test_plain_messages_are_never_suspects(self, bench: Bench) -> None:
        bench.store.ring("q", 6, '{"body":"x"}')
        bench.take_one("w1")
        bench.kill("w1")
        got = bench.take_one("w2", idle=False)
        bench.store.drop("w2", got.holder.take)

    def test_a_message_that_its_record_does_not_name_is_dropped(self, bench: Bench) -> None:
        killed(bench, 1)
        key = bench.keys.of("suspects", "q")
        bench.client.rpush(key, bench.client.lindex(key, 0).replace(b"|2", b"|1"))
        assert [got.generation for got in bench.take("w2")] == [2]
        assert bench.suspects() == []


class TestFreeing:
    def test_a_busy_worker_makes_itself_free_for_one_that_has_waited_long(self, bench: Bench) -> None:
        killed(bench, 1)
        wait_long(bench)
        bench.store.offer([bench.step("other")])
        reply = bench.take_reply("w2", slots=5, idle=False)
        assert (took(reply), reply.rest) == (0, True)
        assert bench.take_one("w2", slots=5).holder.id == "s0"

    def test_only_one_makes_itself_free(self, bench: Bench) -> None:
        killed(bench, 1)
        wait_long(bench)
        bench.worker("w3")
        assert bench.take_reply("w2", idle=False).rest
        assert not bench.take_reply("w3", idle=False).rest
        assert bench.take_reply("w2", idle=False).rest

    def test_when_that_one_dies_another_does(self, bench: Bench) -> None:
        killed(bench, 1)
        wait_long(bench)
        bench.worker("w3")
        assert bench.take_reply("w2", idle=False).rest
        bench.kill("w2")
        assert bench.take_reply("w3", idle=False).rest

    def test_nobody_does_for_one_that_came_just_now(self, bench: Bench) -> None:
        killed(bench, 1)
        bench.store.offer([bench.step("other")])
        assert bench.take_one("w2", idle=False).holder.id == "other"

    def test_afterwards_nobody_is_bound(self, bench: Bench) -> None:
        killed(bench, 1)
        wait_long(bench)
        bench.take_reply("w2", idle=False)
        bench.take_one("w2")
        assert not bench.client.exists(bench.keys.of("freeing", "q"))


class TestCompany:
    def test_of_those_that_died_together_half_run_together_again(self, bench: Bench) -> None:
        killed(bench, 8)
        assert [got.holder.id for got in bench.take("w2", slots=64)] == ["s0", "s1", "s2", "s3"]
        bench.worker("w3")
        assert [got.holder.id for got in bench.take("w3", slots=3)] == ["s4", "s5", "s6"]

    def test_the_poison_is_alone_soon_and_nobody_else_is_condemned(self, bench: Bench) -> None:
        names, poison, kills = killed(bench, 16), "s5", 1
        for turn in range(40):
            worker = bench.worker(f"x{turn}")
            taken = bench.take(worker, slots=64)
            if not taken:
                break
            if poison in [got.holder.id for got in taken]:
                bench.kill(worker)
                kills += 1
            else:
                for got in taken:
                    bench.finish(got.holder)
        assert kills == 7  # together 16, 8, 4, 2, then three times alone
        assert bench.state(poison) == "x"
        assert [name for name in names if bench.state(name) != "d"] == [poison]
        revive(bench, poison)

    def test_who_ended_before_the_death_is_no_company(self, bench: Bench) -> None:
        offered(bench, 3)
        taken = bench.take("w1", slots=3)
        for got in taken[:2]:
            bench.finish(got.holder)
        bench.kill("w1")
        assert (bench.record("s2")["da"], bench.record("s2")["co"]) == ("1", "1")

    def test_it_is_counted_once_for_a_holding_that_goes_in_chunks(self, bench: Bench) -> None:
        names = offered(bench, 8)
        bench.take("w1", slots=8)
        bench.expire_lease("w1")
        while bench.tick(chunk=3).released:
            pass
        assert {bench.record(name)["co"] for name in names} == {"4"}

    def test_what_lies_in_memory_is_no_company_of_a_suspect(self, bench: Bench) -> None:
        """A plain task with an ETA is held for hours and does not run; the suspect is alone all the same."""
        bench.store.ring("q", 6, '{"body":"later"}')
        later = bench.take_one("w2")
        killed(bench, 1)
        bench.take_one("w2")
        bench.kill("w2")
        assert bench.record("s0")["da"] == "2"
        bench.worker("w3")
        bench.store.drop("w3", bench.take_one("w3", idle=False).holder.take)
        assert later.message == {"body": "later"}


def revive(bench: Bench, step_id: str) -> None:
    """Take a condemned step's letter back by hand, for a bench that ends all steps."""
    bench.client.delete(bench.keys.of("letter", step_id))
    bench.client.zrem(bench.keys.of("letters"), step_id)
    bench.client.hset(bench.keys.step(step_id, step_id), mapping={"s": "r", "d": 0})


class TestPoison:
    def test_the_third_death_alone_condemns(self, bench: Bench) -> None:
        offered(bench, 1)
        for number in range(2):
            worker = bench.worker(f"x{number}")
            bench.take_one(worker)
            bench.kill(worker)
        assert bench.suspects() == ["s0"]
        bench.take_one("w1")
        bench.expire_lease("w1")
        assert bench.tick().condemned == 1
        assert (bench.state("s0"), bench.suspects(), bench.lane()) == ("x", [], [])
        assert bench.client.zrange(bench.keys.of("letters"), 0, -1) == [b"s0"]
        letter = {name.decode(): value for name, value in bench.client.hgetall(bench.keys.of("letter", "s0")).items()}
        assert (letter["why"], letter["q"], letter["l"], letter["d"]) == (b"poison", b"q", b"6", b"3")
        assert b'"body": "s0"' in letter["m"]
        revive(bench, "s0")

    def test_a_childs_death_blames_its_own_step_only(self, bench: Bench) -> None:
        offered(bench, 2)
        for number in range(3):
            taken = {got.holder.id: got.holder for got in bench.take("w1", slots=1 if number else 2)}
            bench.store.requeue("w1", taken["s0"].take, lost=True)
            assert bench.state("s0") == ("x" if number == 2 else "q")
            if not number:
                bench.finish(taken["s1"])
        assert bench.state("s0") == "x"
        assert bench.record("s1")["d"] == "0"
        revive(bench, "s0")

    def test_an_outcome_between_the_deaths_begins_the_count_anew(self, bench: Bench) -> None:
        offered(bench, 1)
        for number in range(6):
            worker = bench.worker(f"x{number}")
            holder = bench.take_one(worker).holder
            if number % 3 == 2:
                bench.again(holder)
                bench.store.leave(worker)
            else:
                bench.kill(worker)
        assert bench.state("s0") == "q"

    def test_a_keeper_that_speaks_for_the_dead_condemns_too(self, bench: Bench) -> None:
        offered(bench, 1)
        for number in range(3):
            worker = bench.worker(f"x{number}")
            bench.take_one(worker)
            bench.store.leave(worker, counted=True)
        assert bench.state("s0") == "x"
        revive(bench, "s0")

    def test_a_condemned_step_keeps_its_tree(self, bench: Bench) -> None:
        run = bench.run_agent("run")
        bench.store.send(run, token="t", seen=1, offers=[bench.step("s0", root="run", parent="run", ask="s0")])
        bench.store.park(run, seen=1, due_ms=None)
        for _ in range(3):
            bench.store.requeue("w1", bench.take_one("w1").holder.take, lost=True)
        assert bench.state("s0", "run") == "x"
        assert bench.client.ttl(bench.keys.step("run", "s0")) == -1
        assert bench.events("run")[-2:] == ["lost", "condemned"]
        bench.client.delete(bench.keys.of("letter", "s0"))
        bench.client.zrem(bench.keys.of("letters"), "s0")
        bench.client.hset(bench.keys.step("run", "s0"), mapping={"s": "r", "d": 0})


@pytest.mark.parametrize(
    ("rule", "instead"),
    [
        ("if not idle or count() >= most", "if count() >= most"),
        ("local alone = count_alone(worker) > 0", "local alone = false"),
        ("math.max(math.floor(company / 2), 1)", "company"),
        (">= DEATH_LIMIT", "> 1000"),
        ("return company <= 1 and", "return"),
    ],
)
def test_each_rule_is_seen_to_be_missing(bench: Bench, rule: str, instead: str) -> None:
    """With a rule taken out, the poison is found too late, or a bystander is condemned, or a busy worker takes one."""
    break_rule(bench, rule, instead)
    names, poison = killed(bench, 8), "s5"
    wrong = False
    for turn in range(12):
        worker = bench.worker(f"x{turn}")
        wrong = wrong or bool(bench.take(worker, slots=0 if not bench.suspects() else 1, idle=False))
        taken = bench.take(worker, slots=64)
        wrong = wrong or bool(bench.take(worker, slots=64))
        if poison in [got.holder.id for got in taken]:
            bench.kill(worker)
        else:
            for got in taken:
                bench.finish(got.holder)
    condemned = [name for name in names if bench.state(name) == "x"]
    assert wrong or condemned != [poison]
    for name in condemned:
        revive(bench, name)
