"""How values become script arguments and back; no Redis here."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic_core import PydanticSerializationError, to_json

from agentq.store.refs import Arrival, GoOn, Join, LogPlace, Offer, Taken, TakeReply

_CANCELLED, _OVERDUE, _SUSPECT, _OVER_BUDGET, _REST = 1, 2, 4, 8, 2
"""Flags of a taken message; the reply of a take that tells the worker to make itself free."""


def dump(value: Any) -> str:
    """Return compact JSON text of what consists of dict, list, tuple, str, numbers and None."""
    try:
        return to_json(value).decode()
    except PydanticSerializationError:
        # Half a surrogate pair, which only Python's own writer lets pass.
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def redacted(url: str) -> str:
    """Return ``url`` without its password, for messages and ``repr``."""
    if ";" in url:
        return ";".join(redacted(part) for part in url.split(";"))
    url = re.sub(r"(sentinel_password=)[^&]*", r"\1***", url)
    parts = urlsplit(url)
    if parts.password is None:
        # Put together again, sqlite:////file would lose two of its slashes.
        return url
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port is not None else ""
    user = parts.username or ""
    return parts._replace(netloc=f"{user}:***@{host}{port}").geturl()


def offers_arguments(offers: Sequence[Offer]) -> list[Any]:
    """Return the number of offers, then header and message of each."""
    arguments: list[Any] = [len(offers)]
    for offer in offers:
        arguments.append(dump(offer.header()))
        arguments.append(offer.message)
    return arguments


def joins_arguments(joins: Sequence[Join]) -> list[Any]:
    """Return the number of joins, then header and body message of each (empty where there is no body)."""
    arguments: list[Any] = [len(joins)]
    for join in joins:
        arguments.append(dump(join.header()))
        arguments.append(join.body.message if join.body is not None else "")
    return arguments


def arrivals_arguments(arrivals: Iterable[Arrival]) -> list[Any]:
    """Return the number of arrivals, then their four fields each."""
    listed = list(arrivals)
    arguments: list[Any] = [len(listed)]
    for arrival in listed:
        arguments.extend((arrival.root, arrival.id, arrival.index, int(arrival.succeeded)))
    return arguments


def commit_arguments(
    header: dict[str, Any],
    *,
    results: Sequence[tuple[str, str]],
    joins: Sequence[Join],
    offers: Sequence[Offer],
    arrivals: Iterable[Arrival],
    going_on: GoOn | None = None,
    hears: LogPlace | None = None,
) -> list[Any]:
    """Return a commit's header, with a token of its content, and the counted parts behind it.

    What the worker goes on with or hears is no part of the outcome, nor of its token. A caller that tries again makes
    the same token. The main process that speaks of a time limit while its child succeeds makes another one: the later
    of the two must hear that it lost.
    """
    rest = [
        *pairs_arguments(results),
        *joins_arguments(joins),
        *offers_arguments(offers),
        *arrivals_arguments(arrivals),
    ]
    written = dump(header)
    content = "\0".join([written, *map(str, rest)])
    token = hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest()
    following = f',"next":{dump(going_on.to_wire())}' if going_on is not None else ""
    if hears is not None:
        following = f'{following},"hears":{dump(hears.to_wire())}'
    return [f'{written[:-1]},"token":"{token}"{following}}}', *rest]


def pairs_arguments(pairs: Sequence[tuple[str, str]]) -> list[Any]:
    """Return the number of pairs, then their parts."""
    return [len(pairs), *(part for pair in pairs for part in pair)]


def counted(values: Sequence[str]) -> list[Any]:
    """Return the number of values, then the values."""
    return [len(values), *values]


def parse_take(reply: Sequence[Any]) -> TakeReply:
    """Return what the take script answered."""
    if int(reply[0]) == 0:
        return TakeReply(refused=True)
    taken = [parse_taken(reply, at) for at in range(1, len(reply), 4)]
    rest = int(reply[0]) == _REST or any(each.suspect for each in taken)
    return TakeReply(refused=False, taken=tuple(taken), rest=rest)


def parse_taken(reply: Sequence[Any], at: int) -> Taken:
    """Return the taken message whose four parts begin at ``at``."""
    flags = int(reply[at + 2])
    return Taken(
        take=int(reply[at]),
        queue=reply[at + 1].decode(),
        cancelled=flags & _CANCELLED != 0,
        overdue=flags & _OVERDUE != 0,
        message=reply[at + 3],
        suspect=flags & _SUSPECT != 0,
        over_budget=flags & _OVER_BUDGET != 0,
    )


def moment(value: bytes | str | None) -> datetime | None:
    """Return a server time in ms as an aware datetime; None stays None."""
    if value is None:
        return None
    return datetime.fromtimestamp(int(value) / 1000, tz=UTC)


def text(value: Any) -> str | None:
    """Return a field of a record as text; None stays None."""
    if value is None:
        return None
    return value.decode() if isinstance(value, bytes) else str(value)
