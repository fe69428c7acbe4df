"""Messages that nobody can read: they are kept for people, where Celery would lose or hold them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.utils.log import get_logger

from agentq.engine.delivery import condemn
from agentq.engine.slots import Taker

logger = get_logger(__name__)


def keep_unreadable(consumer: Any) -> None:
    """Have messages that cannot be decoded, or are no valid task, go to the dead letters, whole.

    Celery acknowledges or rejects such messages: a plain one would be gone, a step would stay in this worker's hands
    for ever.
    """

    def guard(method: Callable[..., Any], *, at: int, words: str) -> Callable[..., Any]:
        def handle(*args: Any) -> Any:
            message, error = args[at], args[-1]
            channel = message.channel
            if isinstance(getattr(channel, "taker", None), Taker) and str(message.delivery_tag).isdigit():
                headers = message.headers or {}
                logger.error("unreadable id=%s task=%s: %r", headers.get("id"), headers.get("task"), error)
                condemn(channel, int(message.delivery_tag), words if error is message else f"{words}: {error!r}")
            return method(*args)

        return handle

    consumer.on_decode_error = guard(consumer.on_decode_error, at=0, words="its body cannot be decoded")
    consumer.on_invalid_task = guard(consumer.on_invalid_task, at=1, words="it is no valid task")
    consumer.on_unknown_message = guard(consumer.on_unknown_message, at=1, words="it names no task")
