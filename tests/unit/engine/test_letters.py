"""What is read from a condemned step's message, also where it can hardly be read."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

import pytest

from agentq.engine.letters import _request_of
from agentq.store import Store
from agentq.store.letters import Claimed
from agentq.store.refs import Holder


class Payloads:
    """A store that has one large value."""

    def payload(self, root: str, name: str) -> bytes | None:
        return json.dumps([["large"], {}]).encode() if (root, name) == ("r", "a") else None


def request_of(message: bytes) -> Any:
    return _request_of(cast(Store, Payloads()), Claimed(Holder(root="r", id="s", worker="w", take=1), message))


def message(args: list[Any], embedded: dict[str, Any], **ours: Any) -> bytes:
    body = base64.b64encode(json.dumps([args, {}, embedded]).encode()).decode()
    headers = {"id": "s", "task": "read", "root_id": "r", "agentq": {"k": "s", **ours}}
    return json.dumps({"body": body, "headers": headers, "properties": {"body_encoding": "base64"}}).encode()


def test_what_stands_behind_it_is_known() -> None:
    request = request_of(message([1], {"chain": [{"task": "next"}], "errbacks": None}, ak="ask", pr="r"))
    assert (request.id, request.task, request.args, request.chain) == ("s", "read", [1], [{"task": "next"}])
    assert request.agentq == {"k": "s", "ak": "ask", "pr": "r"}
    assert request.agentq_holder["worker"] == "w"


@pytest.mark.parametrize(("name", "args"), [("a", ["large"]), ("gone", [])])
def test_large_arguments_are_read_where_they_lie(name: str, args: list[str]) -> None:
    assert request_of(message([], {}, pl=name)).args == args


@pytest.mark.parametrize("raw", [b"\xff", b"[1]", b"{}", b'{"headers": {"task": "read"}, "body": 7}'])
def test_what_cannot_be_read_has_no_arguments(raw: bytes) -> None:
    request = request_of(raw)
    assert (request.id, tuple(request.args)) == ("s", ())
