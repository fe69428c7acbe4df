"""Waits for results: one subscription when somebody waits, for all that he waits for.

Celery subscribes to a result's channel when its task is sent, and takes the subscription back when the ``AsyncResult``
goes: for a producer that is as much traffic as the task itself, mostly for results that nobody waits for.
"""

from __future__ import annotations

from typing import Any

from celery.backends.asynchronous import greenletDrainer
from celery.backends.redis import ResultConsumer

IS_LOCKED = hasattr(ResultConsumer, "_locked")
"""Whether Celery lets one thread at a time speak on the subscription, on which ``Listener`` builds: not yet in 5.6."""


class Listener(ResultConsumer):
    """Celery's consumer of results, which subscribes as late as it can without missing one."""

    _pubsub: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._wanted: set[Any] = set()
        self._is_subscribing = False

    def on_after_fork(self) -> None:
        """Forget what the parent process waits for."""
        self._wanted = set()
        self._is_subscribing = False
        super().on_after_fork()

    def consume_from(self, task_id: str) -> None:
        """Note that the result is waited for; the next look at the server subscribes to it."""
        if isinstance(self.drainer, greenletDrainer):
            # It reads all the time, in a greenlet of its own, and looks here once a second only.
            super().consume_from(task_id)
            return
        key = self._get_key_for_task(task_id)
        self._pending_unsubscribe.discard(key)
        if key not in self.subscribed_to:
            self._wanted.add(key)

    def cancel_for(self, task_id: str) -> None:
        """Nobody waits for the result any more. Never blocks, as Celery's does not."""
        key = self._get_key_for_task(task_id)
        self._wanted.discard(key)
        # While another thread subscribes, the key may stand in neither: Celery's way is then undone behind it.
        if self._is_subscribing or key in self.subscribed_to:
            super().cancel_for(task_id)

    def on_wait_for_pending(self, result: Any, **kwargs: Any) -> None:
        """Subscribe first and look at the results then: one that comes in between is seen twice, and never missed."""
        self._subscribe(looked_at={each.id for each in getattr(result, "results", None) or [result]})
        super().on_wait_for_pending(result, **kwargs)

    def drain_events(self, timeout: float | None = None) -> None:
        """Hear what has come for anybody who waits, also since this wait began."""
        if self._wanted:
            self._subscribe(looked_at=set())
        super().drain_events(timeout)

    def _subscribe(self, *, looked_at: set[str]) -> None:
        """Subscribe to what is waited for; the outcomes that are there already are told, but for those looked at."""
        with self._locked():
            self._is_subscribing = True
            try:
                keys = [self._wanted.pop() for _ in range(len(self._wanted))]
                if not keys:
                    return
                self.subscribed_to.update(keys)
                if self._pubsub is None:
                    self._pubsub = self.backend.client.pubsub(ignore_subscribe_messages=True)
                with self.reconnect_on_error():
                    self._pubsub.subscribe(*keys)
            finally:
                self._is_subscribing = False
        seen = {self._get_key_for_task(task_id) for task_id in looked_at}
        unseen = [key for key in keys if key not in seen]
        for meta in self.backend.mget(unseen) if unseen else ():
            if meta:
                self.on_state_change(self._decode_result(meta), None)
