"""What a step's way through a worker does by itself for speed: it comes to what Celery's and kombu's own way does."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from celery.app.task import Context
from celery.result import AsyncResult
from kombu.utils.json import dumps as kombu_dumps
from kombu.utils.json import loads as kombu_loads

from agentq import AgentQ
from agentq.engine.backend import Backend
from agentq.engine.messages import read_json
from agentq.settings import Settings


def make_backend(**configuration: Any) -> Backend:
    app = AgentQ("lean", settings=Settings.model_validate({"redis_url": "redis://nowhere"}), set_as_current=False)
    app.conf.update(configuration)
    return Backend(app=app, url="redis://nowhere")


def celery_meta(backend: Backend, result: Any, request: Context) -> Any:
    meta = backend._get_result_meta(result=result, state="SUCCESS", traceback=None, request=request)
    return json.loads(backend.encode({**meta, "task_id": request.id}))


@pytest.mark.parametrize("result", [None, 7, "é\n", [1, {"a": [None, 1.5]}], "half \ud83d a pair"], ids=repr)
@pytest.mark.parametrize("fields", [{}, {"group": "g", "parent_id": "p"}], ids=["alone", "in a canvas"])
@pytest.mark.parametrize(
    "configuration",
    [{}, {"timezone": "Europe/Berlin"}, {"result_extended": True}, {"enable_utc": False}],
    ids=["plain", "elsewhere", "extended", "local"],
)
def test_a_success_is_stored_as_celery_stores_it(
    result: Any, fields: dict[str, str], configuration: dict[str, Any]
) -> None:
    backend = make_backend(**configuration)
    request = Context({"id": "one", "task": "t", "args": [], "kwargs": {}, **fields})
    request.children.append(AsyncResult("child", backend=backend))
    found, wanted = json.loads(backend.success_meta("one", result, request)), celery_meta(backend, result, request)
    moments = [datetime.fromisoformat(meta.pop("date_done")) for meta in (found, wanted)]
    assert found == wanted
    assert moments[0].utcoffset() == moments[1].utcoffset()
    assert abs(moments[0] - moments[1]).total_seconds() < 60


@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, 2.5, None, "é"]},
        {"when": datetime(2026, 1, 1, tzinfo=UTC), "price": Decimal("1.50")},
        "half \ud83d",
        10**40,
    ],
    ids=repr,
)
def test_json_is_read_as_kombu_reads_it(value: Any) -> None:
    text = kombu_dumps(value).encode()
    assert read_json(text) == kombu_loads(text) == value


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError):
        read_json(b'{"a": ')
