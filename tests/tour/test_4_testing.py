"""The kit for users' own tests: runs in this process, sleeps skipped, no server."""

from __future__ import annotations

import asyncio
from typing import Any

from agentq.testing import run_here


def test_a_run_in_this_process(guide: Any) -> None:
    note = asyncio.run(run_here(guide.study, "Trees", ["one two", "three"]))
    assert note == guide.Note(title="Trees", words=3)


def test_answers_are_given_in_advance(guide: Any) -> None:
    assert asyncio.run(run_here(guide.publish, "Trees", answers={"Publish Trees?": True})) is True


def test_signals_are_given_in_advance(guide: Any) -> None:
    assert asyncio.run(run_here(guide.greeter, signals={"name": ["Ada"]})) == "Hello Ada"


def test_sleeps_are_skipped(guide: Any) -> None:
    from datetime import timedelta

    before, after = asyncio.run(run_here(guide.two_times, timedelta(days=30)))
    assert after - before >= timedelta(days=30)
