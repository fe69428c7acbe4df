"""Opens Redis clients from URLs; the only place that knows how connections are configured."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import redis
import redis.asyncio
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

_RETRIES = 3
"""Repeats of a command after a lost connection; the scripts answer a repeat as they answered the first."""


_CONNECT_S = 5.0


def normalise(url: str) -> str:
    """Return ``url`` in redis-py's spelling (``redis+socket://`` is Celery's name for a unix socket)."""
    for name in ("redis+socket://", "socket://"):
        if url.startswith(name):
            parts = urlsplit(url)
            query = parts.query.replace("virtual_host=", "db=")
            credentials = f"{parts.netloc}" if parts.netloc else ""
            return f"unix://{credentials}{parts.path}" + (f"?{query}" if query else "")
    return url


def _options(socket_timeout: float | None) -> dict[str, Any]:
    return {
        "decode_responses": False,
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": min(_CONNECT_S, socket_timeout or _CONNECT_S),
        "health_check_interval": 30,
    }


def connect(url: str, *, socket_timeout: float | None = 30.0, retries: int = _RETRIES) -> redis.Redis:
    """Return a client of the server at ``url``; nothing is sent until the first command.

    ``socket_timeout`` is in seconds; None waits for ever, for clients that block on the server. ``retries``: how often
    a command is repeated after a lost connection.
    """
    backoff = ExponentialWithJitterBackoff(base=0.05, cap=1.0)
    client: redis.Redis = redis.Redis.from_url(
        normalise(url), retry=Retry(backoff, retries), **_options(socket_timeout)
    )
    return client


def connect_async(url: str, *, socket_timeout: float | None = 30.0) -> redis.asyncio.Redis:
    """Return an asyncio client of the server at ``url``, bound to the loop that first uses it."""
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(normalise(url), **_options(socket_timeout))
    return client
