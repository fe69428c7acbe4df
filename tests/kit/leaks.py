"""Finds keys that a finished test has left without an end.

A key may stay if it has a TTL, if its kind is on the list of permanent keys, or if Celery or kombu own it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import redis

from agentq.store.keys import PERMANENT, Keys
from tests.kit.waiting import wait_until

FOREIGN = (
    re.compile(r"_kombu\.binding"),  # kombu's exchange tables: one per exchange, for good
    re.compile(r"unacked(_index|_mutex)?$"),  # stock workers' custody; empty sets vanish by themselves
)
"""Keys of Celery and kombu that have no end by their nature."""


QUEUED = frozenset({"line", "turns", "shared"})
"""Kinds that hold queued work as lanes do: they may stand without an end, but not when all is done."""


def leaked_keys(client: redis.Redis, *, keys: Keys | None = None, allowed: Iterable[str] = ()) -> list[str]:
    """Return the keys that have neither an end nor a right to stand for ever.

    ``allowed`` holds regular expressions of keys that the test itself leaves on purpose.
    """
    keys = keys if keys is not None else Keys()
    extra = [re.compile(pattern) for pattern in allowed]
    suspects = []
    for raw in client.scan_iter(count=1000):
        name = raw.decode(errors="replace")
        if not (keys.kind_of(name) in PERMANENT - QUEUED or any(p.match(name) for p in (*FOREIGN, *extra))):
            suspects.append(raw)
    with client.pipeline(transaction=False) as pipe:
        for raw in suspects:
            pipe.ttl(raw)
        ends = pipe.execute()
    return sorted(raw.decode(errors="replace") for raw, end in zip(suspects, ends, strict=True) if end == -1)


def check_leaks(client: redis.Redis, *, allowed: Iterable[str] = (), timeout: float = 30.0) -> None:
    """Fail if keys stay without an end.

    What ends a moment after the last result is waited for: for ``timeout`` seconds without one key less.
    """
    allowed = tuple(allowed)
    left = leaked_keys(client, allowed=allowed)
    while left:
        fewest = len(left)

        def fewer(than: int = fewest) -> bool:
            nonlocal left
            left = leaked_keys(client, allowed=allowed)
            return len(left) < than

        wait_until(
            fewer,
            description="every leftover key has an end or stands on the list of permanent keys",
            timeout=timeout,
            interval=0.1 + fewest / 50_000,
            report=lambda: "\n".join(left[:40]),
        )
