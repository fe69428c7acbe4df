"""Gives a condemned step up: its failure is committed as if an attempt of it had failed.

Needs no worker and no code of the step: what its end means stands in its message.
"""

from __future__ import annotations

import base64
from typing import Any

from celery import Celery, states
from celery.app.task import Context
from kombu.utils.json import loads

from agentq.core.errors import CalledOff, RunCancelled, StepCondemned
from agentq.engine import capture, joins, outcome
from agentq.engine.messages import HEADER, HOLDER_HEADER, PAYLOAD, is_call, unstowed
from agentq.store import Store
from agentq.store.letters import Claimed


def end_condemned(app: Celery, store: Store, claimed: Claimed, *, reason: str) -> None:
    """Commit the failure of a step whose dead letter is dropped: its join, its chain and its agent go on with that.

    A step of a cancelled run ends as REVOKED.
    """
    request = _request_of(store, claimed)
    error = StepCondemned(step=request.task or "", step_id=claimed.holder.id, reason=reason)
    if request.task == joins.DISPATCH_TASK and request.args:
        request.chain = list(joins.ends_of(request.args[0]))
    try:
        with capture.capturing() as caught:
            app.backend.mark_as_failure(request.id, error, None, request, True, True, states.FAILURE)
        outcome.commit_failure(store, claimed.holder, caught, request, error, dropped=True)
    except CalledOff:
        # Nobody waits for it any more, and REVOKED is the only end that it may have.
        app.backend.mark_as_called_off(request.id, RunCancelled(run_id=claimed.holder.root), request)
    finally:
        # If it could not be committed, the letter stands again as before.
        store.leave(claimed.holder.worker)


def _request_of(store: Store, claimed: Claimed) -> Any:
    """Return what Celery knows of a task in a worker, as far as it can be read from the message."""
    payload: dict[str, Any] = {}
    try:
        payload = loads(claimed.message.decode())
        stowed = payload["headers"].get(HEADER, {}).get(PAYLOAD)
        arguments = store.payload(claimed.holder.root, stowed) if stowed is not None else None
        if arguments is not None:
            payload = unstowed(payload, arguments)
        args, kwargs, embedded = _body_of(payload)
    except Exception:
        # As unreadable as what made it a dead letter.
        args, kwargs, embedded = (), {}, {}
    headers = dict(payload.get("headers") or {}) if isinstance(payload, dict) else {}
    known = {**headers, **{name: value for name, value in embedded.items() if value is not None}}
    known.update({"id": claimed.holder.id, "root_id": claimed.holder.root, HEADER: headers.get(HEADER) or {}})
    return Context({**known, HOLDER_HEADER: claimed.holder.to_wire()}, args=args, kwargs=kwargs)


def _body_of(payload: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    body: Any = payload["body"]
    if (payload.get("properties") or {}).get("body_encoding") == "base64":
        body = base64.b64decode(body)
    found = loads(body if isinstance(body, str) else body.decode())
    if not is_call(found):
        raise ValueError("its body is no call")
    args, kwargs, embedded = found
    return args, kwargs, embedded or {}
