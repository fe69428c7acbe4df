"""A success that is to be committed while the server is away."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from agentq.core.errors import StoreUnavailable
from agentq.engine.capture import Capture
from agentq.engine.ending import Ending
from agentq.engine.outcome import COMMITTED
from agentq.store.refs import Committed, Holder


class Away:
    """A store that cannot be reached at first: large arguments of what goes on cannot be written."""

    def __init__(self) -> None:
        self.calls = 0

    def begin_commit(self, _holder: Holder, **_parts: Any) -> Any:
        self.calls += 1
        if self.calls == 1:
            raise StoreUnavailable(url="redis://x", reason="away")
        return SimpleNamespace(result=Committed)


def test_it_waits_for_the_server_also_where_it_carries_large_arguments() -> None:
    store = Away()
    binding: Any = SimpleNamespace(store=store, limits=SimpleNamespace(inline_bytes=1000))
    holder = Holder(root="r", id="i", worker="w", take=1)
    request = SimpleNamespace(id="i", task="read", chain=None)
    task: Any = SimpleNamespace(name="read")
    Ending(task, binding, holder, request).succeed(1, Capture())
    assert store.calls == 2
    assert getattr(request, COMMITTED)
