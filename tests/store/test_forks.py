"""A fork's records: laid down with an end, and without one from its start on; a retry happens once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentq.core.errors import StoreUnavailable
from agentq.store.forks import CopiedJoin, CopiedStep, Fork
from agentq.store.refs import Arrival
from tests.store.bench import Bench, agent_join, meta
from tests.store.test_retire import OF_A_RUN

DONE = {"s": "d", "o": "SUCCESS", "q": "q", "g": "1", "k": "s"}


def fork_of(bench: Bench, run: str = "new", *, steps: int = 3) -> Fork:
    copies = [CopiedStep(f"{run}-s{n}", DONE, meta(f"{run}-s{n}")) for n in range(steps)]
    lines = ['{"k":"start","of":"old"}', *('{"k":"signal","n":"go","v":1,"i":"i"}' for _ in range(steps))]
    return Fork(bench.agent(run), "old", "s", lines, copies, [CopiedJoin("map", 3, (0, 2))], signals=["i"])


def test_what_was_laid_down_for_a_fork_that_never_starts_has_an_end(bench: Bench) -> None:
    run_script = bench.store.run_script

    def failing(name: str, *arguments: object) -> object:
        if arguments[0] == "start":
            raise StoreUnavailable(url="x", reason="gone")
        return run_script(name, *arguments)

    bench.store.run_script = failing  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        bench.store.start_fork(fork_of(bench, steps=1200))
    bench.store.run_script = run_script  # type: ignore[method-assign]
    assert bench.client.exists(bench.keys.result("new-s1199"))
    assert bench.without_end(*OF_A_RUN) == []
    assert bench.store.runs() == []


def test_a_started_fork_has_no_end_until_it_is_done(bench: Bench) -> None:
    assert bench.store.start_fork(fork_of(bench, steps=1200)) == "new"
    # The last of many are left to tick, an hour before their end.
    while bench.client.zcard(bench.keys.of("reviving")):
        bench.tick()
    assert len(bench.without_end("step")) == 1200 + 1
    assert bench.client.ttl(bench.keys.result("new-s1199")) == -1
    keys = [bench.keys.log("new", "new"), bench.keys.of("bits", "new", "map"), bench.keys.of("signals", "new", "new")]
    assert [bench.client.ttl(key) for key in keys] == [-1, -1, -1]
    assert bench.store.signal("new", "new", "go", "1", signal_id="i") == "known"
    bench.finish(bench.take_one().holder)
    while bench.client.zcard(bench.keys.of("retiring")):
        bench.tick()
    assert bench.without_end(*OF_A_RUN) == []


def test_what_is_gone_is_not_started(bench: Bench) -> None:
    fork = fork_of(bench)
    run_script = bench.store.run_script

    def forgetting(name: str, *arguments: object) -> object:
        if arguments[0] == "start":
            bench.client.delete(bench.keys.log("new", "new"))
        return run_script(name, *arguments)

    bench.store.run_script = forgetting  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        bench.store.start_fork(fork)
    bench.store.run_script = run_script  # type: ignore[method-assign]
    assert bench.lane() == []


def test_a_fan_out_goes_on_with_the_members_that_are_left(bench: Bench) -> None:
    bench.store.start_fork(fork_of(bench))
    run = bench.take_one().holder
    members = [bench.step(f"m{n}", root="new", parent="new", join=("new", "map"), index=n) for n in range(3)]
    bench.store.send(run, token="t", seen=4, offers=members[1:2], joins=[agent_join("new", "map", 3)])
    assert not bench.store.park(run, seen=1, due_ms=None)
    for got in bench.take("w2"):
        bench.finish(got.holder, arrivals=[Arrival("new", "map", 0, succeeded=True)])
    assert [entry["k"] for entry in bench.look().log("new", "new")][-1] == "joined"
    bench.finish(run)


@pytest.mark.parametrize(("need", "ended", "winners"), [(3, [1], [0, 2, 1]), (2, [], [0, 2]), (1, [], [0])])
def test_a_fan_out_that_needs_some_counts_those_that_are_kept(
    bench: Bench, need: int, ended: list[int], winners: list[int]
) -> None:
    copied = replace(fork_of(bench), joins=[CopiedJoin("map", 4, (0, 2))])
    bench.store.start_fork(copied)
    run = bench.take_one().holder
    members = [bench.step(f"m{n}", root="new", parent="new", join=("new", "map"), index=n) for n in range(4)]
    join = agent_join("new", "map", 4, need=need)
    bench.store.send(run, token="t", seen=4, offers=[members[1], members[3]], joins=[join])
    for index in ended:
        bench.store.arrive([Arrival("new", "map", index, succeeded=True)])
    (joined,) = [entry for entry in bench.log("new") if entry["k"] == "joined"]
    assert joined["at"] == winners
    bench.finish(run)


def test_a_run_is_retried_once_and_its_key_passes_over(bench: Bench) -> None:
    bench.store.start(bench.agent("old", start_digest="d", args_digest="a"), key="k")
    bench.finish(bench.take_one().holder)
    retry = replace(fork_of(bench), origin_root="old", retries=True, key_digest="d")
    assert bench.store.start_fork(retry) == "new"
    assert bench.store.start_fork(retry) == "new"
    assert bench.client.ttl(bench.keys.step("new", "new-s0")) == -1, "the second one has touched nothing"
    assert bench.store.start(bench.agent("third", start_digest="d", args_digest="a"), key="k") == "new"
    assert len(bench.lane()) == 1
    bench.finish(bench.take_one().holder)
    assert bench.without_end(*OF_A_RUN) == []


def test_a_run_whose_retry_is_gone_is_not_retried_again(bench: Bench) -> None:
    """The retention of a sub-agent's tree may begin long after that of its retry has ended."""
    old = bench.run_agent("old")
    retry = replace(fork_of(bench), origin_root="old", retries=True)
    assert bench.store.start_fork(retry) == "new"
    bench.finish(bench.take_one().holder)
    gone = [key for key in bench.client.scan_iter() if b"{new}" in key or b"new" in key]
    bench.client.delete(*gone)
    assert bench.store.start_fork(retry) == "new"
    assert bench.lane() == []
    assert not bench.client.exists(bench.keys.step("new", "new"))
    bench.finish(old)


def test_a_key_that_another_run_took_meanwhile_is_left_to_it(bench: Bench) -> None:
    bench.store.start(bench.agent("other", start_digest="d", args_digest="a"), key="k")
    retry = replace(fork_of(bench), origin_root="old", retries=True, key_digest="d")
    assert bench.store.start_fork(retry) == "new"
    assert bench.store.start(bench.agent("third", start_digest="d", args_digest="a"), key="k") == "other"
    assert bench.client.hget(bench.keys.step("new", "new"), "sd") is None
