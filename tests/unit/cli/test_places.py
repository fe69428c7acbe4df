"""Why steps went where they went, as people read it."""

from __future__ import annotations

import io

from rich.console import Console

from agentq.console.places import LINES_AT_MOST, places_table
from agentq.core.models import StepSummary


def step(name: str, queue: str | None, why: str | None) -> StepSummary:
    return StepSummary(step_id=name, name=f"shop.{name}", status="succeeded", queue=queue, why=why)


def shown(*steps: StepSummary, run: tuple[str, str | None, str | None] | None = None) -> str:
    table = places_table(steps, run=run)
    assert table is not None
    stream = io.StringIO()
    Console(file=stream, width=100).print(table)
    return stream.getvalue()


def test_steps_of_one_reason_are_one_line_and_the_run_comes_first() -> None:
    text = shown(
        *[step("read", "eu", "needs gpu=a100: eu of 2, wait 0.0 s; us 4.1 s") for _ in range(3)],
        step("write", "tools", "the step names pool tools"),
        step("here", None, "in place"),
        run=("research", "managers", "the step names pool managers"),
    )
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    run, read, write = lines[-3:]
    assert run.split() == ["research", "(the", "run)", "managers", *["the", "step", "names", "pool", "managers"]]
    assert "read x3" in read
    assert "eu of 2, wait 0.0 s; us 4.1 s" in read
    assert "the step names pool tools" in write
    assert "in place" not in text


def test_where_nothing_was_chosen_there_is_nothing_to_tell() -> None:
    assert places_table([step("write", "tools", "the step names pool tools")]) is None
    assert places_table([]) is None


def test_many_reasons_are_cut() -> None:
    many = [step("read", f"p{number}", f"needs gpu=a100: p{number} of 50") for number in range(LINES_AT_MOST + 5)]
    assert "5 more reasons" in shown(*many)
