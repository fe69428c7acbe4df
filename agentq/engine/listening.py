"""Waits for results: one subscription when somebody waits, for all that he waits for.

Celery subscribes to a result's channel when its task is sent, and takes the subscription back when the ``AsyncResult``
goes: for a producer that is as much traffic as the task itself, mostly for results that nobody waits for.
"""

from __future__ import annotations

from contextlib import suppress
from time import monotonic
from typing import Any, Final

from celery.backends.asynchronous import greenletDrainer
from celery.backends.redis import ResultConsumer

IS_LOCKED = hasattr(ResultConsumer, "_locked")
"""Whether Celery lets one thread at a time speak on the subscription, on which ``Listener`` builds: not yet in 5.6."""


KEPT: Final = 50
"""So many subscriptions to results that have ended stay until somebody waits again. They cost the server a name each;
to take each back at once costs its caller a message, and the reading of the reply."""


CONFIRMED_S: Final = 30.0
"""A server that has not confirmed a subscription for so long is connected to anew."""


class LateCanceller(ResultConsumer):
    """Celery's consumer before 5.7, whose results go out of scope without a word to the server."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._left: set[str] = set()

    def on_after_fork(self) -> None:
        """Forget what the parent process waited for."""
        self._left = set()
        super().on_after_fork()

    def consume_from(self, task_id: str) -> None:
        """Listen to the result."""
        self._left.discard(task_id)
        super().consume_from(task_id)

    def cancel_for(self, task_id: str) -> None:
        """Nobody waits for the result any more; see ``Listener.cancel_for``."""
        self._left.add(task_id)

    def drain_events(self, timeout: float | None = None) -> None:
        """Hear what has come, and take back what nobody waits for any more."""
        while self._left:
            with suppress(KeyError):  # another thread that waits was faster
                super().cancel_for(self._left.pop())
        super().drain_events(timeout)


class Listener(ResultConsumer):
    """Celery's consumer of results, which subscribes as late as it can without missing one."""

    _pubsub: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._wanted: set[Any] = set()
        self._ended: set[Any] = set()
        self._is_subscribing = False

    def on_after_fork(self) -> None:
        """Forget what the parent process waits for."""
        self._wanted, self._ended = set(), set()
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
        self._ended.discard(key)
        if key not in self.subscribed_to:
            self._wanted.add(key)

    def cancel_for(self, task_id: str) -> None:
        """Nobody waits for the result any more. Never speaks to the server; whoever waits next does.

        Celery comes here also from ``AsyncResult.__del__``: the garbage collector would stop any thread, an event
        loop's too, until a server that is away came back, and raise where nobody can catch it.
        """
        key = self._get_key_for_task(task_id)
        self._wanted.discard(key)
        # While another thread subscribes, the key may stand in neither: that thread takes it back when it is done.
        if self._is_subscribing or (key in self.subscribed_to and len(self._ended) >= KEPT):
            self._pending_unsubscribe.add(key)
        elif key in self.subscribed_to:
            self._ended.add(key)

    def on_wait_for_pending(self, result: Any, **kwargs: Any) -> None:
        """Subscribe first and look at the results then: one that comes in between is seen twice, and never missed."""
        members = getattr(result, "results", None)
        self._subscribe(looked_at={each.id for each in members or [result]})
        if not members and not self.backend.always_retry and not self.backend.get(self._get_key_for_task(result.id)):
            return  # Celery's own look goes on to ask whether it has begun, which nobody wants to know here.
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
                keys = []
                with suppress(KeyError):  # another thread's result may go, and `cancel_for` take its key, at any time
                    while True:
                        keys.append(self._wanted.pop())
                if not keys:
                    return
                ended = self._take_ended() if len(self._ended) >= KEPT // 2 else []
                self.subscribed_to.update(keys)
                if self._pubsub is None:
                    self._pubsub = self.backend.client.pubsub(ignore_subscribe_messages=True)
                with self.reconnect_on_error():
                    self._pubsub.subscribe(*keys)
                    if ended:
                        self._pubsub.unsubscribe(*ended)
                    self._hear_of_subscription(keys[-1])
            finally:
                self._is_subscribing = False
        seen = {self._get_key_for_task(task_id) for task_id in looked_at}
        unseen = [key for key in keys if key not in seen]
        for meta in self.backend.mget(unseen) if unseen else ():
            if meta:
                self.on_state_change(self._decode_result(meta), None)

    def _hear_of_subscription(self, key: Any) -> None:
        """Return when the server has subscribed to the key, the last of a command; what comes before that is told.

        A look at what is there goes by another connection. A busy server that finds both waiting may answer the look,
        then run the commit of the step, and read the subscription last: the result would be neither seen nor heard.
        """
        pubsub, ends = self._pubsub, monotonic() + CONFIRMED_S
        pubsub.ignore_subscribe_messages = False
        try:
            while (left := ends - monotonic()) > 0:
                message = pubsub.get_message(timeout=left) or {"type": None}
                if message["type"] == "message":
                    self.on_state_change(self._decode_result(message["data"]), message)
                elif message["type"] == "subscribe" and message["channel"] == key:
                    return
        finally:
            pubsub.ignore_subscribe_messages = True
            # A thread that waits for its turn to read may wait for what was read here.
            self._pubsub_read.notify_all()
        raise ConnectionError(f"the server did not confirm a subscription within {CONFIRMED_S:.0f} s")

    def _take_ended(self) -> list[Any]:
        """Return the results that have ended and are still subscribed to, which from now on they count no more."""
        ended = []
        for key in list(self._ended):
            # In this order: whoever begins to wait for it takes it out of `_ended` and then looks into `subscribed_to`,
            # without a lock. Either he finds it gone and wants it anew, or it is found here that he was first.
            self.subscribed_to.discard(key)
            try:
                self._ended.remove(key)
            except KeyError:
                self.subscribed_to.add(key)
            else:
                ended.append(key)
        return ended

    def _reconnect_pubsub(self) -> None:
        self._take_ended()
        super()._reconnect_pubsub()
        # Celery looks first and subscribes then: what ends in between is seen by a second look.
        keys = list(self.subscribed_to)
        if not keys:
            return
        self._hear_of_subscription(keys[-1])
        for meta in self.backend.client.mget(keys):
            if meta:
                self.on_state_change(self._decode_result(meta), None)
