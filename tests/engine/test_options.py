"""Options that cannot be meant are refused where they are written."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agentq.core.errors import InvalidArguments
from agentq.engine.options import CallOptions, StepOptions


@pytest.mark.parametrize("options", [CallOptions, StepOptions])
@pytest.mark.parametrize("timeout", [timedelta(0), timedelta(seconds=-1), 5])
def test_a_timeout_is_a_time(options: Any, timeout: Any) -> None:
    with pytest.raises(InvalidArguments, match="timeout"):
        options(timeout=timeout)
