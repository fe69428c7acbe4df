"""The driver of this machine, with processes that are no workers."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentq.core.errors import DriverFailed, Superseded
from agentq.core.pools import PoolSpec
from agentq.fleet.children import birth_of
from agentq.fleet.controller import Controller, Terms
from agentq.fleet.drivers import Observed, Setup, local, make_driver
from agentq.fleet.drivers.local import Local
from tests.kit.waiting import holds_for, wait_until
from tests.store.bench import LEASE_MS, Bench
from tests.store.test_leading import end_lease

SLEEPS = "import time; time.sleep(600)"
Program = Callable[[str], str]


@pytest.fixture
def make(bench: Bench, tmp_path: Path) -> Iterator[Callable[..., Local]]:
    made: list[Local] = []

    def make_one(program: str = SLEEPS, *, folder: Path = tmp_path / "fleet", **fields: Any) -> Local:
        def command(pool: str, instance: str) -> tuple[list[str], Mapping[str, str]]:
            return [sys.executable, "-S", "-c", program], {**os.environ, "AGENTQ_INSTANCE": instance}

        spec = PoolSpec(name="q", max=8, **fields)
        driver = make_driver("local", Setup(lambda: {"q": spec}, bench.store, command, folder, grace_s=5.0))
        assert isinstance(driver, Local)
        made.append(driver)
        return driver

    yield make_one
    for driver in made:
        driver.observe(["q"])
        driver.close(keep=False)


def look(driver: Local) -> Observed:
    return driver.observe(["q"])["q"]


def names(driver: Local) -> list[str]:
    return sorted(each.name for each in look(driver).instances or ())


def test_so_many_run_as_were_ordered_and_a_repeat_starts_no_more(make: Callable[..., Local]) -> None:
    driver = make()
    driver.apply("q", 2, fence=1)
    driver.apply("q", 2, fence=1)
    assert len(names(driver)) == 2
    driver.apply("q", 1, fence=1)
    assert len(names(driver)) == 2, "nobody is sent away by a number"


def test_a_controller_that_stood_still_ends_no_worker_that_another_leads_by_now(
    make: Callable[..., Local], bench: Bench
) -> None:
    terms = Terms(pools=lambda: {"q": PoolSpec(name="q", min=1, max=2)})
    first, second = Controller(bench.store, make(), terms), Controller(bench.store, make(), terms)
    for worker in ("w1", "w2"):
        bench.store.leave(worker)
    first.round()
    (there,) = names(make())
    end_lease(bench, "q")
    assert second.round()
    first.close(keep=False)
    (seen,) = look(make()).instances or ()
    assert (seen.name, seen.is_leaving) == (there, False)
    second.close(keep=False)
    assert names(make()) == []


def test_those_that_are_named_end(make: Callable[..., Local]) -> None:
    driver = make()
    driver.apply("q", 2, fence=1)
    gone, stays = names(driver)
    driver.drain("q", [gone], fence=1)
    wait_until(lambda: names(driver) == [stays], description="one has ended")
    assert look(driver).trouble is None
    driver.drain("q", [gone], fence=1)


def test_another_controller_here_knows_what_the_one_before_has_started(
    make: Callable[..., Local], tmp_path: Path
) -> None:
    first = make()
    first.apply("q", 2, fence=1)
    second = make()
    assert names(second) == names(first)
    second.apply("q", 2, fence=2)
    assert len(names(second)) == 2
    with pytest.raises(Superseded, match="fence 2"):
        first.apply("q", 3, fence=1)
    with pytest.raises(Superseded):
        first.drain("q", names(first), fence=1)
    assert len(names(second)) == 2
    second.drain("q", names(second), fence=2)
    wait_until(lambda: names(second) == [], description="what it has adopted has ended")
    wait_until(lambda: names(first) == [], description="the first one sees that too")
    assert list((tmp_path / "fleet").glob("*.json")) == []


def test_of_what_is_gone_and_what_is_no_longer_the_same_nothing_is_adopted(
    make: Callable[..., Local], tmp_path: Path
) -> None:
    driver = make()
    driver.apply("q", 1, fence=1)
    (file,) = (tmp_path / "fleet").glob("*.json")
    text = file.read_text()
    driver.drain("q", names(driver), fence=1)
    wait_until(lambda: names(driver) == [], description="it has ended")
    # Its number is another process's now: this one's.
    pid = text.split('"pid": ')[1].split(",")[0]
    file.write_text(text.replace(f'"pid": {pid}', f'"pid": {os.getpid()}').replace(f"{birth_of(os.getpid())}", "x"))
    assert names(make()) == []


def test_what_dies_at_its_start_is_told_and_started_ever_more_seldom(make: Callable[..., Local]) -> None:
    driver = make("import sys; sys.exit('no module named llama')")
    driver.apply("q", 1, fence=1)
    wait_until(lambda: look(driver).trouble is not None, description="its death is told")
    trouble = look(driver).trouble or ""
    assert "exit code 1" in trouble
    assert "no module named llama" in trouble
    driver.apply("q", 1, fence=1)
    assert names(driver) == [], "not again at once"
    driver._of("q").until = 0.0
    driver.apply("q", 1, fence=1)
    wait_until(lambda: look(driver).trouble and driver._of("q").row == 2, description="it dies again")


def test_a_worker_that_a_signal_killed_is_replaced(make: Callable[..., Local]) -> None:
    driver = make()
    driver.apply("q", 1, fence=1)
    (child,) = driver._children.values()
    os.kill(child.pid, signal.SIGKILL)
    wait_until(lambda: names(driver) == [], description="its end is seen")
    assert "signal SIGKILL" in (look(driver).trouble or "")
    driver._of("q").until = 0.0
    driver.apply("q", 1, fence=1)
    assert len(names(driver)) == 1


def test_a_worker_that_never_comes_up_is_killed(make: Callable[..., Local]) -> None:
    driver = make()
    driver.apply("q", 1, fence=1)
    (child,) = driver._children.values()
    child.ordered_at -= 100
    driver._looked_up = -100.0
    driver.observe(["q"])
    holds_for(lambda: child.is_alive, description="missed once: the server may have been away", seconds=0.2)
    driver._looked_up = -100.0
    wait_until(lambda: names(driver) == [], description="it was killed")


def test_one_that_the_server_knows_is_no_late_one_whatever_happens_later(
    make: Callable[..., Local], bench: Bench
) -> None:
    driver = make()
    driver.apply("q", 1, fence=1)
    (child,) = driver._children.values()
    details = {"instance": child.name}
    bench.store.enroll("up", label="up", queues=("q",), concurrency=1, lease_ms=LEASE_MS, details=details)
    driver._looked_up = -100.0
    driver.observe(["q"])
    bench.store.leave("up")
    child.ordered_at -= 100
    for _ in range(3):
        driver._looked_up = -100.0
        driver.observe(["q"])
    holds_for(lambda: child.is_alive, description="it is not killed", seconds=0.2)


def test_a_pool_may_allow_its_workers_more_time(make: Callable[..., Local]) -> None:
    driver = make(startup_limit=timedelta(minutes=5))
    driver.apply("q", 1, fence=1)
    (child,) = driver._children.values()
    child.ordered_at -= 100
    for _ in range(3):
        driver._looked_up = -100.0
        driver.observe(["q"])
    holds_for(lambda: child.is_alive, description="it is not killed", seconds=0.2)


def test_a_controller_that_ends_takes_no_workers_of_another_one_along(make: Callable[..., Local]) -> None:
    first, second = make(), make()
    first.apply("q", 1, fence=1)
    (worker,) = names(first)
    second.observe(["other"])
    second.close(keep=False)
    assert names(first) == [worker]
    first.close(keep=False)
    assert names(first) == []


def test_the_output_of_a_worker_does_not_fill_the_disk(
    make: Callable[..., Local], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "LOG_BYTES", 1000)
    go = tmp_path / "go"
    program = f"""
import os, time
print("x" * 2000, flush=True)
while not os.path.exists({str(go)!r}):
    time.sleep(0.01)
print("y", flush=True)
time.sleep(600)
"""
    driver = make(program)
    driver.apply("q", 1, fence=1)
    (log,) = (tmp_path / "fleet").glob("*.log")
    wait_until(lambda: log.stat().st_size == 2001, description="it has written a lot")
    driver.observe(["q"])
    assert log.stat().st_size == 0
    go.touch()
    wait_until(lambda: log.read_text() == "y\n", description="it goes on at the new end")


def test_a_program_that_cannot_be_started_is_told(make: Callable[..., Local], tmp_path: Path) -> None:
    driver = make()
    driver._setup = Setup(driver._setup.pools, driver._setup.store, lambda *_: (["/no/such"], {}), tmp_path)
    with pytest.raises(DriverFailed, match="no/such"):
        driver.apply("q", 1, fence=1)
