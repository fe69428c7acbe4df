"""Who is told of failures, losses and dead letters: a place that assembly fills, and what is told.

The engine says each thing once, and after it is written: an attempt that may not commit tells nobody. It must not know
who listens.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from celery import signals
from celery.utils.log import get_logger

from agentq.core.errors import Unavailable
from agentq.engine.background import Background
from agentq.engine.messages import HEADER
from agentq.store import Store
from agentq.store.losses import Loss
from agentq.store.refs import Holder

if TYPE_CHECKING:
    from agentq.engine.ending import Ending

logger = get_logger(__name__)

AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What is told.

    Attributes:
        what: a step has failed for good; an attempt was lost with its worker, and is made again; a step or a plain
            message is a dead letter.
        step: the task's name; None where nobody could read it.
        step_id: its id.
        run_id, agent: the run that it belongs to and its agent, where there is one.
        attempt: which one it was, from 1; 0 where there was none.
        pool: its queue.
        worker: who had it, where that is another one than who tells.
        at: when it happened; None for now.
        error: what it failed with.
        reason, words: why it is a dead letter, in a word and in a sentence, which may quote the message.
        earlier: what earlier attempts failed with, a line each.
        arguments: of the attempt, by place and by name.
        expected: an error that the task's ``throws`` names.
    """

    what: Literal["failed", "lost", "condemned"]
    step: str | None
    step_id: str
    run_id: str | None = None
    agent: str | None = None
    attempt: int = 0
    pool: str = ""
    worker: str | None = None
    at: datetime | None = None
    error: BaseException | None = None
    reason: str = ""
    words: str = ""
    earlier: tuple[str, ...] = ()
    arguments: tuple[Any, Any] = ((), {})
    expected: bool = False


class Watcher:
    """Hears of nothing and costs nothing: what there is where nobody listens. None of its methods may raise."""

    def begin(self) -> None:
        """Begin to listen in a worker's main process, before its children are made; raises UsageError if it cannot."""

    def begin_child(self) -> None:
        """Begin to listen in a worker's child."""

    def is_on(self) -> bool:
        """Whether somebody listens in this process."""
        return False

    def around(self, attempt: Ending) -> AbstractContextManager[object]:
        """Return what an attempt runs in, so that what its own code says is told as the attempt's."""
        return _NOTHING

    def tell(self, make: Callable[[], Trouble]) -> None:
        """Tell what ``make`` returns, if somebody listens."""

    def flush(self) -> None:
        """Return when all is told, or after two seconds: the process ends."""


_NOTHING: AbstractContextManager[object] = nullcontext()


class LossTeller(Background):
    """Tells what was lost with other workers; each loss is taken by one of them.

    Args:
        store: with a client of its own.
        watcher: who is told.
    """

    def __init__(self, store: Store, watcher: Watcher) -> None:
        super().__init__(store, name="losses", logger=logger)
        self._watcher = watcher

    def look(self) -> None:
        """Tell what is there."""
        while self._watcher.is_on() and not self.is_stopping:
            found = self.store.take_losses(AT_ONCE)
            for loss in found:
                self._watcher.tell(lambda loss=loss: trouble_of_loss(loss))  # type: ignore[misc]
            if len(found) < AT_ONCE:
                return


def watch_worker(watcher: Watcher) -> None:
    """Have the watcher listen in a worker and the children to come, and tell all before one of them ends.

    To be called before the worker's consumer is made, which binds Celery's tracer. Raises UsageError if it cannot be.
    """
    watcher.begin()

    def begin_child(**_kwargs: Any) -> None:
        watcher.begin_child()

    def flush(**_kwargs: Any) -> None:
        watcher.flush()

    signals.worker_process_init.connect(begin_child, weak=False, dispatch_uid="agentq-watch")
    signals.worker_process_shutdown.connect(flush, weak=False, dispatch_uid="agentq-watched")


def trouble_of_loss(loss: Loss) -> Trouble:
    """Return what is told of a loss."""
    return Trouble(
        what="lost" if loss.why == "lost" else "condemned",
        step=loss.name,
        step_id=loss.step_id,
        run_id=loss.run_id,
        agent=loss.agent,
        attempt=loss.attempts,
        pool=loss.queue,
        worker=loss.worker,
        at=loss.at,
        reason=loss.why,
        words=loss.words,
    )


def trouble_of(ending: Ending, error: BaseException) -> Trouble:
    """Return what is told of an attempt's failure; reads the name of the agent that asked for it."""
    found = trouble_of_request(ending.task, ending.request, ending.holder, ending.store, error)
    return replace(found, attempt=ending.number)


def trouble_of_request(task: Any, request: Any, holder: Holder, store: Store, error: BaseException) -> Trouble:
    """Return what is told of a failed step, by Celery's request of it."""
    ours: dict[str, Any] = getattr(request, HEADER, None) or {}
    is_agent = bool(getattr(task, "is_agent", False))
    run_id = holder.id if is_agent else ours.get("pr") or holder.root
    return Trouble(
        what="failed",
        step=getattr(request, "task", None) or "",
        step_id=holder.id,
        run_id=run_id,
        agent=task.name if is_agent else _agent_of(store, holder.root, run_id),
        attempt=int(ours.get("n", 1)),
        pool=queue_of(request),
        error=error,
        earlier=tuple(ours.get("er", ())),
        arguments=(getattr(request, "args", None) or (), getattr(request, "kwargs", None) or {}),
        expected=isinstance(error, tuple(getattr(task, "throws", ()))),
    )


def queue_of(request: Any) -> str:
    """Return the queue that a request came from."""
    return str((getattr(request, "delivery_info", None) or {}).get("routing_key") or "")


def _agent_of(store: Store, root: str, run_id: str) -> str | None:
    try:
        record = store.record(root, run_id)
    except Unavailable:
        return None
    return record.get("nm") if record.get("k") == "a" else None
