"""A queue that is full: a start is refused, a member of a run is held back and comes in as places get free."""

from __future__ import annotations

from typing import Any

import pytest

from agentq.core.errors import KeyReused, QueueFull
from agentq.store.refs import Holder, Offer
from agentq.store.unsent import Hint
from tests.kit.server import PrivateServer
from tests.store.bench import Bench

ACME: dict[str, Any] = {"card": {"tenant": "acme"}}


@pytest.fixture
def run(bench: Bench) -> Holder:
    """An agent's turn, in another queue."""
    bench.store.offer([bench.agent("run", queue="agents")])
    (got,) = bench.take("w1", queues=("agents",))
    return got.holder


def start(bench: Bench, **options: Any) -> Offer:
    """An offer of a start that is refused when two wait already."""
    return bench.step(**{"most": 2, "refuse": True, **options})


def members(bench: Bench, number: int, **options: Any) -> list[Offer]:
    """Members of the run, of which two may wait."""
    return [
        bench.step(f"m{at}", root="run", parent="run", ask=f"m{at}", **{"most": 2, **options}) for at in range(number)
    ]


def waiting(bench: Bench) -> int:
    return sum(bench.store.waiting("q").values())


def held_back(bench: Bench) -> int:
    return sum(bench.store.survey(["q"])["q"].held_back)


class TestStarts:
    def test_a_start_is_refused_with_what_stands_in_its_way(self, bench: Bench) -> None:
        bench.store.offer([start(bench), start(bench)])
        with pytest.raises(QueueFull) as refused:
            bench.store.offer([start(bench)])
        assert (refused.value.pool, refused.value.waiting, refused.value.limit) == ("q", 2, 2)
        assert refused.value.wait_s is not None, "two workers serve it"
        assert 'Pool "q" is full: 2 steps wait there, and max_waiting is 2' in str(refused.value)
        assert waiting(bench) == 2

    def test_nothing_of_a_refused_start_stays_and_its_key_is_free(self, bench: Bench) -> None:
        bench.store.offer([start(bench), start(bench)])
        keyed = start(bench, step_id="keyed", start_digest="d" * 64, args_digest="a")
        with pytest.raises(QueueFull):
            bench.store.start(keyed, key="k")
        assert bench.record("keyed") == {}
        bench.finish(bench.take_one().holder)
        assert bench.store.start(keyed, key="k") == "keyed"

    def test_a_start_that_stands_is_told_even_when_it_is_full(self, bench: Bench) -> None:
        keyed = start(bench, step_id="keyed", start_digest="d" * 64, args_digest="a")
        bench.store.start(keyed, key="k")
        bench.store.offer([start(bench)])
        assert bench.store.start(start(bench, start_digest="d" * 64, args_digest="a"), key="k") == "keyed"
        with pytest.raises(KeyReused):
            bench.store.start(start(bench, start_digest="d" * 64, args_digest="b"), key="k")
        assert bench.store.offer([keyed])[0].state == "known", "the client repeats a lost reply"

    def test_a_flood_of_low_ones_does_not_keep_an_urgent_one_out(self, bench: Bench) -> None:
        bench.store.offer([bench.step(lane=9) for _ in range(5)])
        bench.store.offer([start(bench, lane=3)])
        with pytest.raises(QueueFull):
            bench.store.offer([start(bench, lane=9)])

    def test_a_tenant_has_a_bound_of_its_own(self, bench: Bench) -> None:
        own = {"most": 100, "most_of_tenant": 2, **ACME}
        bench.store.offer([start(bench, **own), start(bench, **own)])
        with pytest.raises(QueueFull, match='2 steps of tenant "acme" wait there') as refused:
            bench.store.offer([start(bench, **own)])
        assert refused.value.tenant == "acme"
        bench.store.offer([start(bench, **{**own, "card": {"tenant": "other"}})])

    def test_without_a_worker_the_expected_wait_is_unknown(self, bench: Bench) -> None:
        bench.store.offer([start(bench, queue="far"), start(bench, queue="far")])
        with pytest.raises(QueueFull, match="no worker serves it") as refused:
            bench.store.offer([start(bench, queue="far")])
        assert refused.value.wait_s is None
        for _ in range(2):
            (got,) = bench.take("w1", queues=("far",))
            bench.finish(got.holder)


class TestMembers:
    def test_members_beyond_the_bound_are_held_back_and_told_once(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, offers=members(bench, 5))
        assert (waiting(bench), held_back(bench)) == (2, 3)
        assert bench.record("m4", "run")["s"] == "l"
        kinds = [event.kind for event in bench.store.events("run")]
        assert kinds.count("held_back") == 1
        assert kinds.count("queued") == 3, "the run's own and two members"
        assert bench.look().misplaced(["q", "agents"]) == []
        bench.finish(run, inside=True)

    def test_they_come_in_as_places_get_free_in_their_order(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, offers=members(bench, 7))
        ended = []
        while held_back(bench) or waiting(bench):
            bench.tick()
            assert waiting(bench) <= 2
            got = bench.take_one("w2")
            ended.append(got.holder.id)
            bench.finish(got.holder)
        assert ended == [f"m{at}" for at in range(7)]
        bench.finish(run, inside=True)

    def test_a_worker_that_runs_dry_lets_them_in_itself(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, offers=members(bench, 5))
        first = bench.take("w2", slots=4)
        assert len(first) == 2
        assert (waiting(bench), held_back(bench)) == (2, 1), "no tick was needed"
        assert bench.client.llen(bench.keys.bell("q")) > 0, "and it hears of them"
        for got in [*first, *bench.take("w2", slots=4), *bench.take("w2", slots=4)]:
            bench.finish(got.holder)
        assert (waiting(bench), held_back(bench)) == (0, 0)
        assert bench.client.exists(bench.keys.of("backlogs")) == 0
        bench.finish(run, inside=True)

    def test_a_child_that_goes_on_lets_them_in_too(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, offers=members(bench, 5))
        first, second = bench.take("w2", slots=2)
        assert (waiting(bench), held_back(bench)) == (0, 3)
        taken = bench.go_on(first.holder)
        assert taken is not None
        assert (waiting(bench), held_back(bench)) == (1, 1)
        bench.finish(second.holder)
        assert taken.holder.id == "m2"
        bench.finish(taken.holder)
        bench.finish(run, inside=True)

    def test_an_urgent_one_comes_in_before_them(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, offers=members(bench, 5))
        urgent = bench.step("urgent", root="run", parent="run", ask="urgent", lane=0, most=2)
        bench.store.send(run, token="t2", seen=1, offers=[urgent])
        assert bench.take_one("w2").holder.id == "urgent"
        bench.finish(run, inside=True)

    def test_one_tenants_backlog_is_not_in_the_way_of_anothers(self, bench: Bench, run: Holder) -> None:
        own = {"most": None, "most_of_tenant": 1}
        mine = members(bench, 3, **own, **ACME)
        other = bench.step("other", root="run", parent="run", ask="o", card={"tenant": "else"}, **own)
        bench.store.send(run, token="t", seen=1, offers=[*mine, other])
        assert (waiting(bench), held_back(bench)) == (2, 2)
        bench.finish(run, inside=True)

    def test_tenants_come_in_by_turns_though_one_place_gets_free_at_a_time(self, bench: Bench, run: Holder) -> None:
        """None stays outside while another one's thousands come in: neither the first of the index nor the last."""
        bench.store.send(run, token="t", seen=1, offers=members(bench, 12, **ACME))
        others = [
            bench.step(f"o{at}", root="run", parent="run", ask=f"o{at}", most=2, card={"tenant": f"t{at}"})
            for at in range(3)
        ]
        bench.store.send(run, token="t2", seen=1, offers=others)
        ended = []
        while held_back(bench) or waiting(bench):
            bench.tick()
            got = bench.take_one("w2")
            ended.append(got.holder.id)
            bench.finish(got.holder)
        assert len(ended) == 15
        assert [name for name in ended if name.startswith("m")] == [f"m{at}" for at in range(12)]
        # Two wait already, and between the turns of the others acme has its own.
        assert max(ended.index(f"o{at}") for at in range(3)) <= 8, ended
        bench.finish(run, inside=True)

    def test_of_hundreds_of_tenants_a_take_reads_some_and_each_comes_in(self, bench: Bench, run: Holder) -> None:
        """A take reads no more of them than may be looked at in one go."""
        own = {"most": 2, "most_of_tenant": 1}
        tenants = [
            bench.step(f"o{at}", root="run", parent="run", ask=f"o{at}", card={"tenant": f"t{at}"}, **own)
            for at in range(250)
        ]
        bench.store.send(run, token="t", seen=1, offers=tenants)
        assert held_back(bench) == 248
        bench.client.config_resetstat()
        got = bench.take_one("w2")
        bench.finish(got.holder)
        bench.tick()
        asked = bench.client.info("commandstats")
        assert "cmdstat_hrandfield" in asked
        assert bench.client.hlen(bench.keys.of("backlogs")) > 200
        ended = {got.holder.id}
        while held_back(bench) or waiting(bench):
            bench.tick()
            for each in bench.take("w2", slots=4):
                ended.add(each.holder.id)
                bench.finish(each.holder)
        assert ended == {f"o{at}" for at in range(250)}
        bench.finish(run, inside=True)

    def test_a_cancelled_one_comes_in_and_is_taken_as_cancelled(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, offers=members(bench, 4))
        bench.store.send(run, token="t2", seen=1, cancels=["m3"])
        assert bench.record("m3", "run")["s"] == "q"
        assert bench.look().misplaced(["q", "agents"]) == []
        assert held_back(bench) == 1
        while got := bench.take("w2", slots=1):
            assert got[0].cancelled == (got[0].holder.id == "m3")
            bench.finish(got[0].holder, status="REVOKED" if got[0].cancelled else "SUCCESS")
            bench.tick()
        assert held_back(bench) == 0
        bench.finish(run, inside=True)

    def test_a_repeat_of_the_same_send_holds_nothing_back_twice(self, bench: Bench, run: Holder) -> None:
        for _ in range(2):
            bench.store.send(run, token="t", seen=1, offers=members(bench, 4))
        assert (waiting(bench), held_back(bench)) == (2, 2)
        bench.finish(run, inside=True)

    def test_who_hands_back_finds_what_is_held_back(self, bench: Bench, run: Holder) -> None:
        bench.store.send(run, token="t", seen=1, offers=members(bench, 4))
        names = bench.store.due_steps()
        assert sorted(names) == ["run|m2|1", "run|m3|1"]
        bench.store.enroll("hands", label="hands", queues=(), concurrency=1, lease_ms=60_000)
        bench.store.gather("hands", ["q"], list(names))
        assert len(bench.store.held_takes("hands")) == 4
        assert (waiting(bench), held_back(bench)) == (0, 0)
        assert bench.client.exists(bench.keys.of("backlogs")) == 0
        bench.finish(run, inside=True)
        bench.store.leave("hands")

    def test_it_works_in_split_mode(self, clean_server: PrivateServer) -> None:
        bench = Bench(clean_server, split=True)
        bench.worker("w1")
        bench.store.offer([bench.step(f"m{at}", root="r", parent="r", most=2) for at in range(5)])
        assert (waiting(bench), held_back(bench)) == (2, 3)
        (post, *_) = bench.store.publish(chunk=10, pause_ms=1000)
        reply = bench.store.claim("w1", "token", [Hint(post.name, post.queue, post.lane)], label="w1")
        assert len(reply.taken) == 1
        assert (waiting(bench), held_back(bench)) == (2, 2)
        clean_server.flush()
        bench.store.close()
