"""Retention and archive: what has ended goes into a database, and only then get its keys an end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentq.core.errors import ArchiveUnavailable, RunNotFound
from agentq.store import Store
from agentq.store.archive.copying import archive_trees
from agentq.store.past import EndedTree
from tests.kit.postgres import PostgresServer
from tests.kit.server import PrivateServer
from tests.store.bench import Bench, agent_join, meta
from tests.store.test_retire import OF_A_RUN

in_both = pytest.mark.parametrize("archive_url", ["sqlite", "postgresql"], indirect=True)
"""For what the two databases may do differently."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def archive_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite:///{tmp_path}/deep/archive.db"
    return str(request.getfixturevalue("postgres").empty_database())


@pytest.fixture
def bench(clean_server: PrivateServer, archive_url: str) -> Iterator[Bench]:
    made = Bench(clean_server, archive_url=archive_url)
    made.worker("w1")
    made.worker("w2")
    yield made
    made.drain()
    archive_all(made.store)
    made.store.close()


def archive_all(store: Store) -> list[EndedTree]:
    """What an archivist does, without its thread."""
    archive = store.archive
    assert archive is not None
    claimed = store.claim_ended(limit=100, lease_ms=60_000)
    assert archive_trees(store, archive, claimed) == len(claimed)
    return claimed


def tell_story(bench: Bench, root: str = "run") -> None:
    """A run with a step, a fan-out, a sub-agent and history, ended."""
    run = bench.run_agent(root, start_digest="d", args_digest="a", card={"key": "k", "tenant": "acme"})
    offers = [
        bench.step(f"{root}-c", root=root, parent=root, ask="c"),
        bench.step(f"{root}-m", root=root, parent=root, join=(root, "map"), index=0),
        bench.agent(f"{root}-sub", root=root, parent=root, ask="sub"),
    ]
    asked = [json.dumps({"k": "ask", "id": "c", "key": "k", "kind": "call", "name": "read", "after": 1})]
    bench.store.send(run, token="t", seen=1, asks=asked, offers=offers, joins=[agent_join(root, "map", 1)])
    bench.store.emit(run, ['{"e":"emit","n":"halfway","f":{"ä":1}}'])
    for got in bench.take("w2", slots=10):
        bench.finish(got.holder, usage={"tokens": 7}, entry='{"k":"result","id":"c","s":"ok","v":1}')
    bench.finish(run)


def told(store: Store, root: str = "run") -> dict[str, Any]:
    """All that people can read of a run."""
    ids = store.member_ids(root)
    return {
        "ids": ids,
        "root": [store.root_of(run) for run in (root, f"{root}-sub")],
        "records": [
            {name: value for name, value in record.items() if name != "m"} for record in store.records(root, ids)
        ],
        "outcomes": store.past_outcomes(root, ids),
        "log": store.past_log(root, root),
        "events": store.events(root),
        "tail": store.events(root, after=3, limit=2),
        "tree": store.tree(root),
        "run": store.run(root),
        "runs": store.runs(),
        "roots": store.runs(roots_only=True, agent="research", status="succeeded"),
        "message": store.quote(root, root),
    }


def expire(bench: Bench) -> None:
    """Let the retention pass: every key that has an end has met it."""
    for key in bench.client.keys("*"):
        if bench.client.pttl(key) > 0:
            bench.client.delete(key)


def test_keys_get_their_end_when_the_archive_holds_the_run_and_not_before(bench: Bench) -> None:
    tell_story(bench)
    for _ in range(3):
        bench.tick()
    assert {bench.keys.kind_of(key) for key in bench.without_end(*OF_A_RUN)} >= {"step", "log", "events", "tree"}
    assert [tree.root for tree in archive_all(bench.store)] == ["run"]
    assert bench.without_end(*OF_A_RUN, "message", "ended") == []
    assert bench.client.pttl(bench.keys.log("run", "run")) > bench.store.retention_ms - 60_000


@in_both
def test_an_archived_run_reads_as_before(bench: Bench) -> None:
    tell_story(bench)
    before = told(bench.store)
    assert len(before["events"]) > 5
    assert before["message"]
    archive_all(bench.store)
    assert told(bench.store) == before
    expire(bench)
    assert not bench.client.exists(bench.keys.step("run", "run"))
    assert told(bench.store) == before
    assert bench.store.past_outcome("run", "run") == json.loads(meta("run"))


@in_both
def test_the_load_of_a_queue_is_read_back_in_order(bench: Bench) -> None:
    tell_story(bench)
    for step_id, queued, begun, ended in (("run-c", 2_000, 9_000, 9_250), ("run-m", 1_000, 1_500, 3_000)):
        now = bench.store.now_ms() - 60_000
        times = {"c": now + queued, "b": now + begun, "f": now + ended}
        bench.client.hset(bench.keys.step("run", step_id), mapping=times)
        bench.client.hdel(bench.keys.step("run", step_id), "sq")
    archive_all(bench.store)
    queue = bench.store.record("run", "run-c")["q"]
    found = bench.store.recorded_load(queue, since_s=3600)
    assert [step.service_s for step in found] == [1.5, 0.25], "the sub-agent's turns are left out"
    assert found[0].at_s < found[1].at_s
    assert bench.store.recorded_load(queue, since_s=30) == []
    assert bench.store.recorded_load("another", since_s=3600) == []


@in_both
def test_a_listing_has_both(bench: Bench) -> None:
    tell_story(bench, "old")
    archive_all(bench.store)
    expire(bench)
    bench.worker("w3")
    tell_story(bench, "new")
    archive_all(bench.store)
    bench.store.offer([bench.agent("live")])
    assert [run.run_id for run in bench.store.runs(roots_only=True)] == ["live", "new", "old"]
    assert [run.run_id for run in bench.store.runs(roots_only=True, limit=2)] == ["live", "new"]
    assert {run.run_id for run in bench.store.runs(status="succeeded")} == {"new", "old", "new-sub", "old-sub"}


def test_a_run_that_nobody_knows_is_not_waited_for(bench: Bench) -> None:
    assert bench.store.root_of("nobody") is None
    with pytest.raises(RunNotFound):
        bench.store.past_outcome("nobody", "nobody")


def test_the_archive_of_another_application_is_not_read(bench: Bench, clean_server: PrivateServer) -> None:
    tell_story(bench)
    archive_all(bench.store)
    other = Store(clean_server.url, prefix="other", archive_url=bench.store.archive_url)
    assert other.root_of("run") is None
    assert other.runs() == []
    other.close()


@in_both
def test_a_tree_that_lives_again_is_copied_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_story(bench)
    (tree,) = bench.store.claim_ended(limit=10, lease_ms=0)
    assert bench.store.archive is not None
    confirm = bench.store.confirm_archived

    def revive(claimed: EndedTree) -> bool:
        bench.store.offer([bench.step("late", root="run")])
        return confirm(claimed)

    monkeypatch.setattr(bench.store, "confirm_archived", revive)
    archive_trees(bench.store, bench.store.archive, [tree])
    monkeypatch.undo()
    assert bench.client.ttl(bench.keys.log("run", "run")) == -1
    bench.finish(bench.take_one().holder)
    # The earlier copy lacks the late step: its mark does not count any more.
    assert not bench.store.confirm_archived(tree)
    assert bench.client.ttl(bench.keys.log("run", "run")) == -1
    archive_all(bench.store)
    expire(bench)
    assert "late" in bench.store.member_ids("run")


def test_a_claimed_tree_is_given_to_nobody_else_until_the_claim_ends(bench: Bench) -> None:
    tell_story(bench)
    assert len(bench.store.claim_ended(limit=10, lease_ms=60_000)) == 1
    assert bench.store.claim_ended(limit=10, lease_ms=60_000) == []
    bench.client.zadd(bench.keys.of("ended"), {"run": bench.store.now_ms()})
    assert len(bench.store.claim_ended(limit=10, lease_ms=60_000)) == 1
    bench.client.zadd(bench.keys.of("ended"), {"run": bench.store.now_ms()})


@in_both
def test_a_large_tree_is_copied_whole(bench: Bench) -> None:
    run = bench.run_agent("run")
    members = [bench.step(f"s{n}", root="run", parent="run", join=("run", "map"), index=n) for n in range(600)]
    bench.store.send(run, token="t", seen=1, offers=members, joins=[agent_join("run", "map", 600)])
    for got in bench.take("w2", slots=600):
        bench.finish(got.holder)
    bench.finish(run)
    events = [event.offset for event in all_events(bench.store)]
    archive_all(bench.store)
    while bench.client.zcard(bench.keys.of("retiring")):
        bench.tick()
    expire(bench)
    assert len(bench.store.member_ids("run")) == 601
    assert [event.offset for event in all_events(bench.store)] == events == list(range(1, len(events) + 1))


def all_events(store: Store) -> list[Any]:
    found: list[Any] = []
    while more := store.events("run", after=len(found)):
        found += more
    return found


def test_steps_of_celery_alone_are_not_archived(bench: Bench) -> None:
    bench.store.offer([bench.step("s1")])
    bench.finish(bench.take_one().holder)
    assert bench.store.awaiting_archive() == (0, 0.0)
    assert bench.without_end(*OF_A_RUN) == []


def test_what_waits_for_an_archive_that_was_turned_off_goes_after_the_retention(
    clean_server: PrivateServer, tmp_path: Path
) -> None:
    bench = Bench(clean_server, archive_url=f"sqlite:///{tmp_path}/archive.db")
    bench.worker("w1")
    bench.finish(bench.run_agent("run"))
    without = Bench(clean_server)
    without.tick()
    assert bench.client.ttl(bench.keys.log("run", "run")) == -1
    bench.client.zadd(bench.keys.of("ended"), {"run": bench.store.now_ms() - bench.store.retention_ms - 1})
    bench.tick()
    assert bench.client.ttl(bench.keys.log("run", "run")) == -1
    without.tick()
    assert bench.without_end(*OF_A_RUN) == []
    bench.drain()


def test_an_agent_in_a_canvas_takes_the_canvas_with_it(bench: Bench) -> None:
    bench.store.offer([bench.step("first")])
    bench.finish(bench.take_one().holder, offers=[bench.agent("second", root="first")])
    bench.finish(bench.take_one().holder)
    assert [tree.root for tree in archive_all(bench.store)] == ["first"]
    expire(bench)
    assert bench.store.member_ids("first") == ["first", "second"]
    assert bench.store.root_of("second") == "first"


def test_an_archive_that_is_away_loses_nothing(clean_server: PrivateServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    bench = Bench(clean_server, archive_url=f"sqlite:///{tmp_path}/file/archive.db")
    bench.worker("w1")
    bench.worker("w2")
    tell_story(bench)
    with pytest.raises(ArchiveUnavailable):
        archive_all(bench.store)
    assert bench.store.awaiting_archive()[0] == 1
    assert bench.client.ttl(bench.keys.log("run", "run")) == -1
    (tmp_path / "file").unlink()
    bench.client.zadd(bench.keys.of("ended"), {"run": bench.store.now_ms()})
    assert len(archive_all(bench.store)) == 1
    assert bench.without_end(*OF_A_RUN) == []
    bench.drain()
    bench.store.close()
