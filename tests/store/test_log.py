"""The log over a run's life: reading, history, and going on as new."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentq.core.errors import StaleHolder
from agentq.store import Store
from agentq.store.refs import Holder
from tests.kit.server import PrivateServer
from tests.store.bench import Bench


@pytest.fixture
def run(bench: Bench) -> Holder:
    return bench.run_agent("run")


def restart(bench: Bench, holder: Holder, **options: Any) -> None:
    fields: dict[str, Any] = {"token": "r", "seen": 1, "message": '{"body":"next"}', "version": "2", "carry": []}
    bench.store.restart(holder, **{**fields, **options})


def test_a_log_is_read_from_any_place(bench: Bench, run: Holder) -> None:
    for number in range(3):
        bench.store.signal("run", "run", f"s{number}", "1")
    assert [json.loads(entry).get("n") for entry in bench.store.read_log("run", "run", 2)] == ["s1", "s2"]
    assert bench.store.read_log("run", "run", 9) == []
    assert bench.store.read_log("x", "x") == []


def test_server_times_of_the_log_never_go_back(bench: Bench, run: Holder) -> None:
    for number in range(20):
        bench.store.signal("run", "run", f"s{number}", "1")
    times = [entry["t"] for entry in bench.log("run")]
    assert times == sorted(times)


class TestEmit:
    def test_lines_are_appended_by_the_holder_alone(self, bench: Bench, run: Holder) -> None:
        assert bench.store.emit(run, ['{"e":"x","r":"run"}', '{"e":"y","r":"run"}'])
        bench.finish(run)
        assert not bench.store.emit(run, ['{"e":"z","r":"run"}'])
        assert bench.events("run") == ["queued", "started", "x", "y", "finished"]

    def test_a_repeated_call_writes_once(self, bench: Bench, run: Holder) -> None:
        call = ("emit", "run", "run", run.worker, run.take, "token", '{"e":"x","r":"run"}')
        assert [bench.store.run_script(*call) for _ in range(3)] == [1, 1, 1]
        assert bench.events("run").count("x") == 1


class TestRestart:
    def test_the_next_log_begins_with_what_was_not_consumed(self, bench: Bench, run: Holder) -> None:
        for name in ("a", "b"):
            bench.store.signal("run", "run", name, "1")
        seen = bench.store.read_log("run", "run")
        bench.store.signal("run", "run", "late", "1")
        restart(bench, run, seen=3, carry=[seen[2].decode()])
        assert [entry.get("n") for entry in bench.log("run")] == [None, "b", "late"]
        assert bench.log("run")[0]["version"] == "2"
        got = bench.take_one("w2")
        assert (got.message["body"], got.generation) == ("next", 2)

    def test_a_repeat_restarts_once(self, bench: Bench, run: Holder) -> None:
        restart(bench, run)
        restart(bench, run)
        assert len(bench.lane()) == 1
        assert bench.kinds("run") == ["start"]

    def test_a_stale_turn_cannot_restart(self, bench: Bench, run: Holder) -> None:
        bench.kill("w1")
        bench.store.signal("run", "run", "a", "1")
        with pytest.raises(StaleHolder):
            restart(bench, run, seen=9)
        assert bench.kinds("run") == ["start", "signal"]

    def test_children_are_called_off(self, bench: Bench, run: Holder) -> None:
        child = bench.agent("sub", root="run", parent="run", ask="sub")
        bench.store.send(run, token="t", seen=1, offers=[child])
        restart(bench, run, cancels=["sub"])
        assert bench.kinds("sub", "run") == ["start", "cancel"]

    def test_the_step_of_the_old_log_tells_the_new_one(self, bench: Bench, run: Holder) -> None:
        child = bench.step("c", root="run", parent="run", ask="c")
        bench.store.send(run, token="t", seen=1, offers=[child])
        restart(bench, run)
        for got in bench.take("w2", slots=2):
            if got.holder.id == "c":
                bench.finish(got.holder, entry='{"k":"result","id":"c","s":"ok","v":1}')
        assert bench.kinds("run") == ["start", "result"]

    def test_signal_ids_are_remembered_for_some_logs_and_then_forgotten(self, bench: Bench, run: Holder) -> None:
        holder = run
        assert bench.store.signal("run", "run", "go", "1", signal_id="first") == "new"
        for turn in range(40):
            restart(bench, holder, token=f"r{turn}", seen=99)
            holder = bench.take_one("w1").holder
            if turn < 5:
                assert bench.store.signal("run", "run", "go", "1", signal_id="first") == "known"
            bench.store.signal("run", "run", "go", "1", signal_id=f"i{turn}")
        assert bench.client.hlen(bench.keys.of("signals", "run", "run")) < 20

    def test_ten_thousand_signal_ids_can_be_forgotten(self, bench: Bench, run: Holder) -> None:
        ids = {f"i{number}": "0 t" for number in range(10_000)}
        bench.client.hset(bench.keys.of("signals", "run", "run"), mapping=ids)
        bench.client.hset(bench.keys.step("run", "run"), "seg", 15)
        restart(bench, run)
        assert bench.client.hlen(bench.keys.of("signals", "run", "run")) == 0


def test_history_is_cut_at_its_limit_and_offsets_never_move(server: PrivateServer) -> None:
    bench = Bench(server)
    bench.store.scripts = type(bench.store.scripts)(bench.keys, retention_ms=bench.store.retention_ms, event_limit=50)
    bench.worker()
    run = bench.run_agent("run")
    for number in range(100):
        bench.store.emit(run, [json.dumps({"e": "n", "r": "run", "f": {"n": number}})])
    events = bench.store.events("run", limit=1000)
    assert len(events) <= 50
    assert all(event.fields["n"] == event.offset - 3 for event in events)
    last = events[-1].offset
    assert [event.offset for event in bench.store.events("run", after=last - 2)] == [last - 1, last]
    bench.drain()


def test_following_a_history_wakes_for_a_new_line(bench: Bench, run: Holder) -> None:
    other = Store(bench.store.url)
    waits = bench.store.wait_events("run", 5)
    next(waits)
    other.emit(run, ['{"e":"x","r":"run"}'])
    next(waits)
    assert bench.events("run")[-1] == "x"
    waits.close()
    other.close()
