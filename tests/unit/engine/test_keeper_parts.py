"""The keeper's parts by themselves: the shared page, the processes that it watches, and how little it loads."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from time import monotonic

import psutil
import pytest

from agentq.engine.keeper import claims
from agentq.engine.keeper.board import ENDS, SERVES, SLOTS, Board, Running
from agentq.engine.keeper.program import BREATH_S, RECOVERY_S, Keeper, Terms
from agentq.engine.keeper.watch import Brood, Parent
from tests.kit.waiting import wait_until

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board.make()
    yield made
    made.close()


class TestBoard:
    def test_another_process_reads_what_one_writes(self, board: Board) -> None:
        other = Board.open(board.path)
        board.beat, board.floor, board.open_ended = 1.5, 7, 2
        assert other.farewell == SERVES
        other.farewell = ENDS
        assert (other.main, other.beat, other.floor, other.open_ended) == (os.getpid(), 1.5, 7, 2)
        assert board.farewell == ENDS
        other.close()

    def test_an_attempt_stands_there_until_it_has_ended(self, board: Board) -> None:
        claims.publish(board)
        try:
            with claims.claim(3, 10.0) as claim:
                (running,) = board.running()
                assert (running.pid, running.take, running.limit_s) == (os.getpid(), 3, 10.0)
                claim.extend(99.0)
                (longer,) = board.running()
                assert longer.deadline > running.deadline
                claim.finish()
                assert [running.deadline for running in board.running()] == [math.inf]
            assert list(board.running()) == []
        finally:
            claims.withdraw(board)

    def test_slots_are_used_again(self, board: Board) -> None:
        claims.publish(board)
        try:
            for take in range(3):
                with claims.claim(2 * take, 1.0), claims.claim(2 * take + 1, 1.0):
                    assert {running.slot for running in board.running()} == {0, 1}
        finally:
            claims.withdraw(board)

    def test_more_attempts_than_slots_run_without_a_limit(self, board: Board) -> None:
        assert [board.take_slot() for _ in range(SLOTS)] == list(range(SLOTS))
        assert board.take_slot() is None
        assert not board.seat(SLOTS)

    def test_a_second_solo_pool_of_this_process_is_no_child_without_a_parent(self, board: Board) -> None:
        """As in Celery's own tests, and a step that starts a plain worker: it ended the whole process."""
        claims.publish(board)
        try:
            claims.sit(-1)
        finally:
            claims.withdraw(board)

    def test_without_a_page_a_claim_is_nothing(self) -> None:
        with claims.claim(1, 1.0) as claim:
            claim.extend()
            claim.finish()


class TestWatch:
    def test_a_parent_that_is_gone_is_seen(self) -> None:
        code = (
            "import os\n"
            "from agentq.engine.keeper.watch import Parent\n"
            "parent = Parent(os.getppid())\n"
            "before = parent.is_gone\n"
            "print('watching', flush=True)\n"
            "parent.wait(30)\n"
            "print('gone' if parent.is_gone and not before else 'there')\n"
        )
        # The watcher's words come through a pipe that outlives the one whom it watches.
        reader, writer = os.pipe()
        with os.fdopen(reader) as words:
            starter = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {code!r}])\nsys.stdin.read(1)\n"
            parent = subprocess.Popen([sys.executable, "-c", starter], stdin=subprocess.PIPE, stdout=writer)
            os.close(writer)
            assert words.readline() == "watching\n"
            parent.kill()
            parent.communicate()
            assert words.read() == "gone\n"

    def test_who_is_not_the_parent_counts_as_gone(self) -> None:
        assert Parent(1).is_gone
        assert not Parent(os.getppid()).is_gone

    @pytest.mark.skipif(sys.platform != "linux", reason="nothing tells it elsewhere")
    def test_a_stopped_process_is_seen(self) -> None:
        child = subprocess.Popen(SLEEPER)
        try:
            watched = Parent(child.pid)
            assert not watched.is_stopped()
            child.send_signal(signal.SIGSTOP)
            wait_until(watched.is_stopped, description="it is stopped")
        finally:
            child.kill()
            child.wait()

    def test_children_end_and_nobody_else(self) -> None:
        child = subprocess.Popen(SLEEPER)
        brood = Brood(os.getpid())
        brood.see({child.pid, os.getppid(), 0, 1})
        brood.kill(os.getppid())
        assert brood.has_ended(1)
        assert not brood.has_ended(child.pid)
        assert brood.end(within_s=10.0) == []
        assert child.wait() == -signal.SIGKILL
        brood.see(set())
        assert brood.end(within_s=0.0) == []


class TestJudgement:
    """When a worker's keeper stops to renew, and when it kills. The parent here is the tests' own."""

    @pytest.fixture
    def keeper(self, board: Board) -> Keeper:
        terms = Terms(
            worker="w1",
            main=os.getppid(),
            board=board.descriptor,
            board_path=board.path,
            url="redis://localhost:1/0",
            scripts={},
            dead="dead",
            timeout_s=1.0,
            lease_s=3.0,
            renew_s=0.5,
            tick_s=0.25,
            hard_s=100.0,
            grace_s=1.0,
            card=(),
        )
        return Keeper(terms, board)

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody sees whether a process stands still")
    @pytest.mark.parametrize("ends", [True, False])
    def test_what_ends_at_its_limit_is_not_killed_for_it(
        self, keeper: Keeper, monkeypatch: pytest.MonkeyPatch, ends: bool
    ) -> None:
        """It might begin another step between the keeper's look and its kill, had it not to stand still meanwhile."""
        overdue = Running(slot=0, pid=0, take=1, limit_s=1.0, deadline=1.0)
        with subprocess.Popen(SLEEPER) as child:
            try:
                overdue = replace(overdue, pid=child.pid)
                keeper.brood = Brood(os.getpid())
                keeper.brood.see({child.pid})
                stood: list[bool] = []

                def look(_slot: int) -> Running | None:
                    stood.append(psutil.Process(child.pid).status() == psutil.STATUS_STOPPED)
                    return None if ends else overdue

                monkeypatch.setattr(keeper, "overdue", lambda _now: [overdue])
                monkeypatch.setattr(keeper.lease, "mark_overdue", lambda _take: None)
                monkeypatch.setattr(keeper.lease, "give_back", lambda _take: None)
                monkeypatch.setattr(keeper.board, "read", look)
                keeper.end_overdue(100.0)
                assert stood == [True]
                if ends:
                    wait_until(
                        lambda: psutil.Process(child.pid).status() != psutil.STATUS_STOPPED, description="it goes on"
                    )
                    assert child.poll() is None
                else:
                    assert child.wait(timeout=60) == -signal.SIGKILL
            finally:
                child.kill()

    def test_it_ticks_again_soon_while_more_waits(self, keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
        pauses = []
        for behind in (False, True):
            monkeypatch.setattr(keeper.lease, "tick", lambda behind=behind: behind)
            now = monotonic()
            pauses.append(keeper.tick(now) - now)
        assert keeper.terms.tick_s / 2 <= pauses[0] <= keeper.terms.tick_s * 1.5
        assert BREATH_S / 2 <= pauses[1] < keeper.terms.tick_s / 2

    def test_a_loop_that_stands_still_longer_than_any_hard_limit_is_dead(self, keeper: Keeper) -> None:
        board = keeper.board
        assert keeper.may_renew(1000.0), "it has not begun"
        board.beat = 1000.0
        assert keeper.may_renew(1101.0)
        assert not keeper.may_renew(1101.5)
        board.take_slot()
        board.write(0, take=1, limit_s=500.0, deadline=1500.0)
        assert keeper.may_renew(1501.0), "a step runs that may take so long"
        assert not keeper.may_renew(1501.5)
        board.open_ended = 1
        assert keeper.may_renew(9999.0), "and a plain task has no limit"

    def test_a_loop_that_connects_anew_is_not(self, keeper: Keeper) -> None:
        keeper.board.beat = 1000.0
        keeper.note_outage_over(1200.0)
        assert keeper.may_renew(1300.0)
        assert not keeper.may_renew(1301.5)

    def test_an_attempt_is_overdue_after_its_limit_and_a_grace(self, keeper: Keeper) -> None:
        keeper.board.take_slot()
        keeper.board.write(0, take=7, limit_s=5.0, deadline=1005.0)
        assert keeper.overdue(1005.5) == []
        assert [running.take for running in keeper.overdue(1006.0)] == [7]

    def test_what_may_have_waited_for_the_server_gets_a_moment(self, keeper: Keeper) -> None:
        keeper.board.take_slot()
        keeper.board.write(0, take=7, limit_s=5.0, deadline=1005.0)
        keeper.note_outage_over(1100.0)
        assert keeper.overdue(1100.0 + RECOVERY_S - 1.0) == []
        assert len(keeper.overdue(1100.0 + RECOVERY_S)) == 1


def test_the_keepers_program_loads_little() -> None:
    code = "import sys, agentq.engine.keeper.program; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = set(found.stdout.split())
    assert not loaded & {"celery", "kombu", "pydantic", "agentq.store.store", "agentq.core.errors"}
