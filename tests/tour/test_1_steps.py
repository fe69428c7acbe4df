"""Steps: functions that run elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentq import AgentqError
from agentq.canvas import fan_out

TIMEOUT = 60


def test_outside_a_run_a_step_is_a_plain_function(guide: Any) -> None:
    assert guide.count_words("one two three") == 3


def test_a_step_is_a_celery_task(guide: Any) -> None:
    assert guide.count_words.delay("one two").get(timeout=TIMEOUT) == 2


def test_a_step_may_be_async(guide: Any) -> None:
    assert guide.fetch.delay("a page").get(timeout=TIMEOUT) == "text of a page"


def test_wrong_arguments_are_refused_before_anything_is_sent(guide: Any) -> None:
    with pytest.raises(AgentqError, match="text"):
        guide.count_words.delay(17)


def test_using_gives_the_same_step_with_other_options(guide: Any) -> None:
    urgent = guide.count_words.using(priority="critical")
    assert urgent.delay("one").get(timeout=TIMEOUT) == 1


def test_a_step_retries(guide: Any, tmp_path: Path) -> None:
    assert guide.shaky.delay(str(tmp_path / "tries")).get(timeout=TIMEOUT) == 3


def test_canvas_without_an_agent(guide: Any) -> None:
    from celery import chain

    flow = chain(guide.split.s("one two. three"), fan_out(guide.count_words.s()), guide.summarise.s("t"))
    assert flow is not None
    counts = chain(guide.split.s("one two. three"), fan_out(guide.count_words.s())).apply_async()
    assert counts.get(timeout=TIMEOUT) == [2, 1]
