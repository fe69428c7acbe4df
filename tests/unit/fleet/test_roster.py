"""Which instances are which workers, and who is to go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agentq.fleet.drivers import Instance, Observed
from agentq.fleet.roster import Roster, make_roster, startups, who_goes, who_stays
from agentq.store.sensing import SeenWorker
from tests.unit.fleet.test_sensors import glance

MARK = {"by": "autoscale"}


def worker(name: str, *, held: int = 0, rests: bool = False, mark: dict[str, Any] | None = None) -> SeenWorker:
    return SeenWorker(f"id-{name}", name, 90_000, held, rests, mark)


def roster(instances: list[Instance] | None, *workers: SeenWorker, wanted: int | None = None) -> Roster:
    rests = sum(each.rests for each in workers)
    seen = replace(glance(), workers=len(workers) - rests, resting=rests, listed=workers)
    return make_roster(Observed(wanted, None if instances is None else tuple(instances)), seen)


def test_an_instance_without_a_worker_starts() -> None:
    found = roster([Instance("a", 10), Instance("b", 3)], worker("a"))
    assert [post.instance.name for post in found.ready] == ["a"]
    assert [each.name for each in found.starting] == ["b"]
    assert (found.taking, found.coming, found.ours, found.instances) == (1, 1, 2, 2)


def test_what_was_ordered_and_is_not_listed_yet_is_coming() -> None:
    assert roster([Instance("a", 10)], worker("a"), wanted=4).coming == 3


def test_a_stranger_takes_work_and_is_none_of_ours() -> None:
    found = roster([Instance("a", 10)], worker("a"), worker("by hand"))
    assert (found.taking, found.ours, found.strangers) == (2, 1, 1)


def test_who_rests_drains_and_is_done_are_told_apart() -> None:
    found = roster(
        [*(Instance(name, 10) for name in ("ill", "told", "heard", "done")), Instance("leaves", 9, True)],
        worker("ill", rests=True),
        worker("told", held=1, mark=MARK),
        worker("heard", held=1, rests=True, mark=MARK),
        worker("done", rests=True, mark=MARK),
        worker("leaves", rests=True, mark=MARK),
    )
    assert [post.instance.name for post in found.resting] == ["ill"]
    assert [(post.instance.name, post.is_done) for post in found.draining] == [
        ("told", False),
        ("heard", False),
        ("done", True),
    ]
    assert [post.instance.name for post in found.leaving] == ["leaves"]
    assert found.taking == 0


def test_what_a_person_has_drained_rests() -> None:
    found = roster([Instance("a", 10)], worker("a", rests=True, mark={"at": 1}))
    assert [post.instance.name for post in found.resting] == ["a"]


def test_the_idle_go_first_and_of_them_the_youngest() -> None:
    found = roster(
        [Instance("old", 100), Instance("young", 10), Instance("busy", 1)],
        worker("old"),
        worker("young"),
        worker("busy", held=1),
    )
    assert [post.instance.name for post in who_goes(found, 2)] == ["young", "old"]
    assert [post.instance.name for post in who_goes(found, 9)] == ["young", "old", "busy"]
    assert who_goes(found, -1) == ()


def test_the_busiest_that_drain_are_taken_back_first() -> None:
    found = roster([Instance("a", 1), Instance("b", 1)], worker("a", mark=MARK), worker("b", held=2, mark=MARK))
    assert [post.instance.name for post in who_stays(found, 1)] == ["b"]


def test_without_a_list_every_worker_counts() -> None:
    found = roster(None, worker("a"), worker("b", rests=True), wanted=5)
    assert (found.taking, found.coming, found.unlisted_resting, found.ours) == (1, 3, 1, 4)


def test_a_start_is_measured_from_the_order_to_the_enrolment() -> None:
    found = roster([Instance("a", 12), Instance("b", 99)], worker("a"), worker("b"))
    # Enrolled at 90 s, looked at at 98 s, ordered 12 s before: four seconds.
    assert startups(found, {"a"}, 98_000) == [4.0]
