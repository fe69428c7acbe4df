"""A worker that stops is not held up: neither by a child that waits to be heard, nor by a broker that does not answer.

When its consumer closes, Celery drops from memory each request that no child has said to have begun. One that stands in
a child's pipe runs all the same; but with nothing left in memory the main process reads no more answers, and a child
does not end before its last one was read, or 30 seconds have passed.
"""

from __future__ import annotations

from typing import Any, Final

from celery.bootsteps import RUN

GOODBYE_S: Final = 3.0
"""How long a broker may take to answer a goodbye. Nothing hangs on it: what was not acknowledged comes again."""


def keep_what_was_sent(worker: Any) -> None:
    """Have a worker that stops take what it has sent to its children for begun."""
    pool = worker.pool
    children: Any = getattr(pool, "_pool", None)
    flush = getattr(pool, "flush", None)
    if flush is None or not hasattr(children, "outbound_buffer"):
        return

    def flush_unsent() -> None:
        # One that only connects anew goes on reading, and its broker sends again what had not begun.
        if worker.blueprint.state != RUN:
            for call in children._cache.values():
                _take_for_begun(call)
        flush()

    pool.flush = flush_unsent


def _take_for_begun(call: Any) -> None:
    child = call._write_to
    # Where only a part is written, `flush` writes the rest: the child must not begin its next message amid this one.
    if child is not None and call._accepted is False and child._is_alive():
        call._accepted = True
        # If it dies before it says so, its call is lost as those that it has begun.
        call._worker_pid = child.pid


def bound_goodbye(connection: Any) -> None:
    """Have the end of a worker's connection to an AMQP broker not wait for ever; others need no answer.

    A broker under pressure reads nothing from who has published much, and so does not see the goodbye either.
    """
    established = getattr(connection, "_connection", None)
    sock = getattr(getattr(established, "transport", None), "sock", None)
    if sock is not None:
        sock.settimeout(GOODBYE_S)
