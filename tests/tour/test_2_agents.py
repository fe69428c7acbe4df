"""Agents: functions that outlive their processes."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agentq import AgentqError

TIMEOUT = 60


def test_an_agent_calls_steps_and_joins_their_results(guide: Any) -> None:
    note = guide.study.start("Trees", ["one two", "three"]).get(timeout=TIMEOUT)
    assert note == guide.Note(title="Trees", words=3)


def test_starmap_unpacks_tuples(guide: Any) -> None:
    assert guide.unpack.start().get(timeout=TIMEOUT) == ["a", "b b", "c c c"]


def test_plain_asyncio_works_in_an_agent(guide: Any) -> None:
    assert guide.at_once.start(["a", "b"]).get(timeout=TIMEOUT) == ["text of a", "text of b"]


def test_gather_takes_signatures_and_awaitables(guide: Any) -> None:
    assert guide.gathered.start().get(timeout=TIMEOUT) == [2, 1]


def test_a_local_call_is_journaled_in_place(guide: Any) -> None:
    handle = guide.in_place.start("quiet")
    assert handle.get(timeout=TIMEOUT) == "QUIET"


def test_time_is_the_runs_own(guide: Any) -> None:
    before, after = guide.two_times.start(timedelta(seconds=0.2)).get(timeout=TIMEOUT)
    assert after - before >= timedelta(seconds=0.2)


def test_random_numbers_replay(guide: Any) -> None:
    rolled = guide.dice.start(5).get(timeout=TIMEOUT)
    assert len(rolled) == 5
    assert set(rolled) <= {1, 2, 3, 4, 5, 6}


def test_an_agent_may_call_an_agent(guide: Any) -> None:
    assert guide.editor.start("Trees").get(timeout=TIMEOUT) == 3


def test_a_spawned_run_goes_its_own_way(guide: Any) -> None:
    child = guide.founder.start().get(timeout=TIMEOUT)
    assert guide.app.runs.get(child).get(timeout=TIMEOUT).title == "spawned"


def test_a_run_without_end_continues_as_new(guide: Any) -> None:
    handle = guide.countdown.start(3)
    assert handle.get(timeout=TIMEOUT) == "lift-off"


def test_a_failed_step_fails_its_run(guide: Any) -> None:
    handle = guide.doomed.start("too soon")
    with pytest.raises(AgentqError, match="too soon"):
        handle.get(timeout=TIMEOUT)
    assert handle.status() == "failed"


def test_undo_runs_after_a_failure(guide: Any, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    with pytest.raises(AgentqError, match="second thoughts"):
        guide.regretful.start(str(ledger)).get(timeout=TIMEOUT)
    assert ledger.read_text().split() == ["reserved", "withdrawn"]


def test_a_budget_stops_a_run(guide: Any) -> None:
    assert guide.frugal.start(2).get(timeout=TIMEOUT) == 2
    with pytest.raises(AgentqError, match="steps"):
        guide.frugal.start(10).get(timeout=TIMEOUT)


def test_spending_adds_up(guide: Any) -> None:
    handle = guide.frugal.start(3)
    assert handle.get(timeout=TIMEOUT) == 3
    usage = handle.usage()
    assert (usage.tokens_in, usage.tokens_out) == (0 + 1 + 2, 3)


def test_a_steps_retry_belongs_to_the_step(guide: Any, tmp_path: Path) -> None:
    handle = guide.persistent.start(str(tmp_path / "tries"))
    assert handle.get(timeout=TIMEOUT) == 3
    (step,) = handle.steps()
    assert (step.status, step.attempts) == ("succeeded", 3)


def test_handles_can_be_awaited(guide: Any) -> None:
    async def visit() -> tuple[int, Counter[str]]:
        handle = await guide.study.astart("Trees", ["one two", "three"])
        kinds: Counter[str] = Counter()
        async for event in handle.events():
            kinds[event.kind] += 1
        return (await handle).words, kinds

    words, kinds = asyncio.run(visit())
    assert words == 3
    assert sum(kinds.values()) > 0
