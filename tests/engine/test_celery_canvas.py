"""Steps are ordinary Celery tasks: calling, chains, groups, chords, replace, retry, links and errbacks.

Every test runs twice: in an app of agentq's own, and in an existing Celery app that agentq was installed in.
"""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
from celery import chain, chord, group
from celery.result import AsyncResult, GroupResult

from tests.kit.sample import TIMEOUT, Library, lines, wait_for_lines
from tests.kit.waiting import wait_until


def test_delay_and_apply_async(library: Library) -> None:
    add = library.task("add")
    assert add.delay(1, 2).get(timeout=TIMEOUT) == 3
    assert add.apply_async((1,), {"b": 5}).get(timeout=TIMEOUT) == 6
    assert add.s(1, 2).delay().get(timeout=TIMEOUT) == 3
    assert add.s(1).apply_async((4,)).get(timeout=TIMEOUT) == 5


def test_an_async_step_is_called_alike(library: Library) -> None:
    assert library.task("double_async").delay(4).get(timeout=TIMEOUT) == 8


def test_the_result_is_where_async_result_looks(library: Library) -> None:
    result = library.task("add").apply_async((2, 2), task_id="chosen-by-the-caller" + library.kind)
    assert result.get(timeout=TIMEOUT) == 4
    again = AsyncResult(result.id, app=library.app)
    assert again.state == "SUCCESS"
    assert again.result == 4
    assert library.server.client.ttl(f"celery-task-meta-{result.id}") > 0


def test_a_countdown_is_kept(library: Library) -> None:
    began = time.monotonic()
    assert library.task("add").apply_async((1, 1), countdown=0.6).get(timeout=TIMEOUT) == 2
    assert time.monotonic() - began >= 0.6


def test_a_countdown_counts_by_the_servers_clock(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's is an hour ahead."""
    add = library.task("add")
    clock = type(add.app).now
    monkeypatch.setattr(add.app, "now", lambda: clock(add.app) + timedelta(hours=1), raising=False)
    assert add.apply_async((1, 1), countdown=0.2).get(timeout=TIMEOUT) == 2


def test_a_chain_hands_results_on(library: Library) -> None:
    add, double = library.task("add"), library.task("double")
    result = chain(add.s(1, 2), double.s(), add.s(10)).apply_async()
    assert result.get(timeout=TIMEOUT) == 16
    assert result.parent.get(timeout=TIMEOUT) == 6
    assert (add.s(1, 2) | double.s() | double.s())().get(timeout=TIMEOUT) == 12


def test_an_immutable_signature_takes_nothing_over(library: Library) -> None:
    add = library.task("add")
    assert chain(add.s(1, 2), add.si(5, 5)).apply_async().get(timeout=TIMEOUT) == 10


def test_the_whole_chain_is_one_run(library: Library) -> None:
    add, whoami = library.task("add"), library.task("whoami")
    first = chain(add.s(1, 2), whoami.si()).apply_async()
    request = first.get(timeout=TIMEOUT)
    assert request["id"] == first.id
    assert request["root_id"] == request["parent_id"] == first.parent.id


def test_a_group_keeps_the_order(library: Library) -> None:
    double = library.task("double")
    result = group(double.s(n) for n in range(12)).apply_async()
    assert result.get(timeout=TIMEOUT) == [2 * n for n in range(12)]
    assert result.completed_count() == 12


def test_a_group_result_can_be_saved_and_restored(library: Library) -> None:
    result = group(library.task("double").s(n) for n in range(3)).apply_async()
    result.save()
    assert result.get(timeout=TIMEOUT) == [0, 2, 4]
    restored = GroupResult.restore(result.id, app=library.app)
    assert restored.get(timeout=TIMEOUT) == [0, 2, 4]
    restored.delete()


def test_a_chord_joins(library: Library) -> None:
    double, total = library.task("double"), library.task("total")
    assert chord([double.s(n) for n in range(20)])(total.s()).get(timeout=TIMEOUT) == 380


def test_a_chord_of_one(library: Library) -> None:
    double, total = library.task("double"), library.task("total")
    assert chord([double.s(4)], total.s()).apply_async().get(timeout=TIMEOUT) == 8


def test_a_chord_of_chains(library: Library) -> None:
    add, double, total = library.task("add"), library.task("double"), library.task("total")
    result = chord([chain(add.s(n, 1), double.s()) for n in range(5)], total.s()).apply_async()
    assert result.get(timeout=TIMEOUT) == sum(2 * (n + 1) for n in range(5))


def test_a_chain_around_a_group_becomes_a_chord(library: Library) -> None:
    add, double, total = library.task("add"), library.task("double"), library.task("total")
    result = chain(add.s(1, 1), group(double.s(), add.s(5)), total.s(), double.s()).apply_async()
    assert result.get(timeout=TIMEOUT) == 2 * (4 + 7)


def test_chords_in_chords(library: Library) -> None:
    double, total = library.task("double"), library.task("total")
    inner = [chord([double.s(n) for n in range(size)], total.s()) for size in (2, 3, 4)]
    assert chord(inner, total.s()).apply_async().get(timeout=TIMEOUT) == 2 + 6 + 12


def test_a_chords_failure_reaches_the_body_as_celery_says(library: Library, tmp_path: Path) -> None:
    double, total, broken = library.task("double"), library.task("total"), library.task("broken")
    seen = tmp_path / "seen"
    body = total.s().on_error(library.task("note_error").s(str(seen)))
    result = chord([double.s(1), broken.s("no good"), double.s(3)], body).apply_async()
    with pytest.raises(Exception, match="no good"):
        result.get(timeout=TIMEOUT)
    assert wait_for_lines(seen, 1) == ["error ChordError"]


def test_a_failure_ends_a_chain(library: Library, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    broken, noted = library.task("broken"), library.task("noted")
    result = chain(broken.s("stop here"), noted.si(str(seen), "after")).apply_async()
    with pytest.raises(Exception, match="stop here"):
        result.parent.get(timeout=TIMEOUT)
    assert result.parent.state == "FAILURE"
    assert lines(seen) == []


def test_links_follow_a_success(library: Library, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    add, note_result, note_error = (library.task(n) for n in ("add", "note_result", "note_error"))
    add.apply_async((1, 2), link=note_result.s(str(seen)), link_error=note_error.s(str(seen)))
    assert wait_for_lines(seen, 1) == ["result 3"]


def test_errbacks_follow_a_failure(library: Library, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    broken, note_result, note_error = (library.task(n) for n in ("broken", "note_result", "note_error"))
    result = broken.apply_async(("bad",), link=note_result.s(str(seen)), link_error=note_error.s(str(seen)))
    with pytest.raises(Exception, match="bad"):
        result.get(timeout=TIMEOUT)
    assert wait_for_lines(seen, 1) == ["error ValueError"]


def test_errbacks_of_the_older_kind_get_the_id(library: Library, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    broken, note_failed_id = library.task("broken"), library.task("note_failed_id")
    result = broken.apply_async(("bad",), link_error=note_failed_id.s(path=str(seen)))
    assert wait_for_lines(seen, 1) == [f"failed {result.id}"]


def test_a_task_replaces_itself(library: Library) -> None:
    result = library.task("sum_or_add").delay([1, 2, 3, 4])
    assert result.get(timeout=TIMEOUT) == 10


def test_a_replaced_task_keeps_its_place_in_a_chain(library: Library) -> None:
    sum_or_add, double = library.task("sum_or_add"), library.task("double")
    assert chain(sum_or_add.s([1, 2, 3]), double.s()).apply_async().get(timeout=TIMEOUT) == 12


def test_a_replaced_task_keeps_its_place_in_a_chord(library: Library) -> None:
    sum_or_add, double, total = (library.task(n) for n in ("sum_or_add", "double", "total"))
    members = [sum_or_add.s([1, 2, 3]), double.s(5), sum_or_add.s([4, 5])]
    assert chord(members, total.s()).apply_async().get(timeout=TIMEOUT) == 6 + 10 + 9


def test_a_task_replaces_itself_by_a_chord(library: Library) -> None:
    assert library.task("replaced_by_chord").delay(5).get(timeout=TIMEOUT) == 20


def test_a_task_asks_for_its_own_retry(library: Library, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    assert library.task("retried").delay(str(seen), 2).get(timeout=TIMEOUT) == 2
    assert len(lines(seen)) == 3


def test_a_retried_task_keeps_its_place_in_a_chain(library: Library, tmp_path: Path) -> None:
    retried, double = library.task("retried"), library.task("double")
    assert chain(retried.s(str(tmp_path / "seen"), 2), double.s()).apply_async().get(timeout=TIMEOUT) == 4


def test_a_retried_task_keeps_its_link(library: Library, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    link = library.task("note_result").s(str(seen))
    library.task("flaky").apply_async((str(tmp_path / "tries"), 1), link=link)
    assert wait_for_lines(seen, 1) == ["result 2"]


def test_the_steps_own_retry_keeps_its_place(library: Library, tmp_path: Path) -> None:
    flaky, double, total = (library.task(n) for n in ("flaky", "double", "total"))
    assert chain(flaky.s(str(tmp_path / "a"), 2), double.s()).apply_async().get(timeout=TIMEOUT) == 6
    members = [flaky.s(str(tmp_path / "b"), 1), double.s(4)]
    assert chord(members, total.s()).apply_async().get(timeout=TIMEOUT) == 2 + 8


def test_retries_run_out(library: Library, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with pytest.raises(Exception, match="no route"):
        library.task("retried_out").delay(str(seen)).get(timeout=TIMEOUT)
    assert len(lines(seen)) == 2


def test_chunks_and_starmap_of_a_step(library: Library) -> None:
    add = library.task("add")
    assert add.starmap([(1, 2), (3, 4)]).delay().get(timeout=TIMEOUT) == [3, 7]
    assert add.chunks([(1, 2), (3, 4), (5, 6)], 2).delay().get(timeout=TIMEOUT) == [[3, 7], [11]]


def test_agents_are_tasks_too(library: Library) -> None:
    fan, double = library.task("fan"), library.task("double")
    assert fan.delay(4).get(timeout=TIMEOUT) == 12
    assert chain(fan.s(4), double.s()).apply_async().get(timeout=TIMEOUT) == 24
    agents = [library.task("double_agent").s(n) for n in range(4)]
    assert chord(agents, library.task("total").s()).apply_async().get(timeout=TIMEOUT) == 12


def test_a_queued_step_is_revoked(library: Library, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    result = library.task("noted").apply_async((str(seen), "late"), countdown=2)
    result.revoke()
    with pytest.raises(Exception, match=r"(?i)revoked"):
        result.get(timeout=TIMEOUT)
    assert lines(seen) == []


def test_results_can_be_ignored(library: Library, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    result = library.task("noted").apply_async((str(seen), "once"), ignore_result=True)
    assert wait_for_lines(seen, 1) == ["once"]
    # STARTED while it runs; afterwards nothing of it is stored, which Celery calls PENDING.
    wait_until(lambda: result.state == "PENDING", description="the step's end")
