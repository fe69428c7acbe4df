from __future__ import annotations

from typing import Any

import pytest

from agentq import InvalidArguments
from agentq.engine.options import CallOptions, StepOptions


@pytest.mark.parametrize("wrong", ["hgh", 3], ids=["a slip", "Celery's number"])
def test_a_priority_that_is_none_is_refused_where_it_is_written(wrong: Any) -> None:
    with pytest.raises(InvalidArguments, match='"critical", "high", "low", "normal"'):
        CallOptions().with_(priority=wrong)
    with pytest.raises(InvalidArguments, match="priority"):
        StepOptions(priority=wrong)


@pytest.mark.parametrize("wrong", ["", "x" * 201, 7], ids=["nothing", "too long", "a number"])
def test_a_tenant_is_a_short_text(wrong: Any) -> None:
    with pytest.raises(InvalidArguments, match="a text of 1 to 200 characters"):
        CallOptions().with_(tenant=wrong)


def test_options_cross_the_wire_as_they_are() -> None:
    chosen = CallOptions().with_(priority="high", key="k", tenant="t")
    assert CallOptions.from_wire(chosen.to_wire()) == chosen.with_(priority=None)
