"""The protocol's state in one Redis: keys, scripts, readers, and the embedded server.

Names nothing of Celery. Every write may be repeated; what must be one instant is one script. ``Store`` is loaded when
it is first used: a keeper needs of this package its lease alone.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentq.store.store import Store as Store

__all__ = ["Store"]


def __getattr__(name: str) -> Any:
    if name == "Store":
        from agentq.store.store import Store

        globals()["Store"] = Store
        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
