"""Opens Redis clients from URLs; the only place that knows how connections are configured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
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


@dataclass(frozen=True, slots=True)
class SentinelPlace:
    """Where Sentinels tell which server is the master.

    In a URL: ``sentinel://user:password@host:26379;sentinel://host:26379/0?master_name=NAME``. User, password and
    database are the master's; ``sentinel_username`` and ``sentinel_password`` in the query are the Sentinels' own.
    """

    hosts: tuple[tuple[str, int], ...]
    master_name: str
    master: dict[str, Any]
    sentinel: dict[str, Any]


def is_sentinel(url: str) -> bool:
    """Tell whether a URL names Sentinels."""
    return url.startswith("sentinel://")


def without_query(url: str) -> str:
    """Return a ``sentinel://`` URL as Celery knows it, which has the rest in its transport options."""
    return ";".join(part.split("?")[0] for part in url.split(";"))


def sentinel_place(url: str) -> SentinelPlace:
    """Return what a ``sentinel://`` URL says."""
    whole = [urlsplit(part) for part in url.split(";")]
    hosts = tuple((part.hostname or "localhost", part.port or 26379) for part in whole)
    master: dict[str, Any] = {"db": 0}
    query: dict[str, str] = {}
    for part in whole:
        query.update(parse_qsl(part.query))
        if part.password is not None:
            master["password"] = unquote(part.password)
        if part.username:
            master["username"] = unquote(part.username)
        if part.path.strip("/"):
            master["db"] = int(part.path.strip("/"))
    own = {name: query[f"sentinel_{name}"] for name in ("username", "password") if f"sentinel_{name}" in query}
    return SentinelPlace(hosts, query.get("master_name", ""), master, own)


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
    options = {
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), retries),
        **_options(socket_timeout),
    }
    if is_sentinel(url):
        place = sentinel_place(url)
        guide = redis.sentinel.Sentinel(list(place.hosts), sentinel_kwargs=_of_sentinel(place))  # type: ignore[no-untyped-call]
        master: redis.Redis = guide.master_for(place.master_name, **place.master, **options)  # type: ignore[no-untyped-call]
        return master
    client: redis.Redis = redis.Redis.from_url(_tls_in_words(normalise(url)), **options)
    return client


def _of_sentinel(place: SentinelPlace) -> dict[str, Any]:
    # One that hangs must not hold up the question to the next.
    return {"socket_timeout": _CONNECT_S / 5, "socket_connect_timeout": _CONNECT_S / 5, **place.sentinel}


def _tls_in_words(url: str) -> str:
    """Return ``url`` with redis-py's words for how strictly certificates are checked, where Celery's stand."""
    for name in ("REQUIRED", "OPTIONAL", "NONE"):
        url = url.replace(f"ssl_cert_reqs=CERT_{name}", f"ssl_cert_reqs={name.lower()}")
    return url


def connect_async(url: str, *, socket_timeout: float | None = 30.0) -> redis.asyncio.Redis:
    """Return an asyncio client of the server at ``url``, bound to the loop that first uses it."""
    options = _options(socket_timeout)
    if is_sentinel(url):
        place = sentinel_place(url)
        guide = redis.asyncio.sentinel.Sentinel(list(place.hosts), sentinel_kwargs=_of_sentinel(place))  # type: ignore[no-untyped-call]
        master: redis.asyncio.Redis = guide.master_for(place.master_name, **place.master, **options)
        return master
    client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(_tls_in_words(normalise(url)), **options)
    return client
