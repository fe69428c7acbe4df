"""Writes a step's outcome: what was caught, what the parent's log is told, in one commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from celery import states
from celery.utils.log import get_logger
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_random_exponential

from agentq.core.codec import dumps, loads
from agentq.core.errors import AgentqError, StepFailed, StoreUnavailable
from agentq.engine.capture import Capture
from agentq.engine.messages import HEADER, HEDGED, HOLDER_HEADER
from agentq.store import Store
from agentq.store.refs import Arrival, GoOn, Holder, LogPlace
from agentq.store.steps import CommitUnderWay, Outcome

logger = get_logger(__name__)

T = TypeVar("T")

MOST_WORDS: Final = 10_000
"""Characters of an error's text that travel on: a failed parser may quote its whole document."""

COMMITTED: Final = "agentq_committed"
"""Set on a request whose outcome is written: what Celery says of it afterwards is not written again."""

RAISED: Final = "agentq_raised"
"""Set on a request whose attempt has ended, for Celery to tell of what it has raised: nothing runs again."""


def holder_of(request: Any) -> Holder | None:
    """Return the attempt that a request is; None for a plain task and outside a worker."""
    wire = getattr(request, HOLDER_HEADER, None) if request is not None else None
    if not wire or "id" not in wire:
        return None
    return Holder.from_wire(wire)


def error_to_wire(error: BaseException, *, step: str, step_id: str) -> dict[str, Any]:
    """Return an error as ``{code, fields}``; one that is not agentq's becomes StepFailed with its type and text."""
    if isinstance(error, AgentqError):
        return error.to_wire()
    failed = StepFailed(step=step, step_id=step_id, error_type=type(error).__name__, message=text_of(error))
    return failed.to_wire()


def text_of(error: BaseException) -> str:
    """Return an error's own text, cut; in words of ours where it has none that can be had."""
    try:
        text = str(error)
    except Exception as second:
        return f"its text cannot be had: {type(second).__name__}"
    return text if len(text) <= MOST_WORDS else f"{text[:MOST_WORDS]}… ({len(text)} characters)"


def keep_trying(call: Callable[[], T]) -> T:
    """Return ``call()``, made again and again until the server answers.

    The result was paid for; while the server is away nobody else can take the step, and afterwards the holder check
    says whether it is still ours.
    """
    try:
        return call()
    except StoreUnavailable as error:
        logger.warning("commit_waits: %s", error)
    patience = Retrying(
        retry=retry_if_exception_type(StoreUnavailable),
        wait=wait_random_exponential(multiplier=0.1, max=5),
        before_sleep=_log_wait,
    )
    return patience(call)


def _log_wait(state: RetryCallState) -> None:
    if state.outcome is not None:
        logger.warning("commit_waits: %s", state.outcome.exception())


@dataclass(frozen=True, slots=True)
class Charge:
    """What an attempt has used, and how what its guards reserved for it ends.

    Attributes:
        usage: as the store counts it.
        accounts: the budgets that it is charged to, beside the tree.
        settles: ``ok`` for breakers, ``tokens`` for rates; None where nothing was reserved.
    """

    usage: dict[str, int] = field(default_factory=dict)
    accounts: Sequence[dict[str, Any]] = ()
    settles: dict[str, Any] | None = None


NOTHING: Final = Charge()
"""What an attempt has used that never ran here."""


def begin_success(
    store: Store,
    holder: Holder,
    caught: Capture,
    request: Any,
    value: Any,
    *,
    inline_bytes: int,
    charge: Charge,
    closes: tuple[str, ...] = (),
    cancels: tuple[str, ...] = (),
    going_on: GoOn | None = None,
    cached: bool = False,
    hears: LogPlace | None = None,
    ran_ms: int | None = None,
) -> CommitUnderWay:
    """Send the commit of a success; ``value`` is JSON-able. Its result raises as the store's commit does.

    ``hears``: what has come into that log comes with the result.
    """
    entry = _entry(request, "ok", value, inline_bytes, tokens=charge.usage.get("tokens", 0), cached=cached)
    parts: Outcome = {
        "mode": "done",
        "status": states.SUCCESS,
        "results": _for_first(caught.results, request),
        "entry": entry,
        "settles": charge.settles,
        "closes": closes,
        "cancels": cancels,
        "ran_ms": ran_ms,
    }
    # Most steps send nothing on and say nothing of what they have used.
    if charge.usage:
        parts |= {"usage": charge.usage, "accounts": charge.accounts}
    if caught.joins or caught.offers or caught.arrivals:
        arrivals = _of_first(caught.arrivals, request)
        parts |= {"joins": caught.joins, "offers": caught.offers, "arrivals": arrivals}
    return store.begin_commit(holder, name=request.task or "", going_on=going_on, hears=hears, **parts)


def commit_failure(
    store: Store,
    holder: Holder,
    caught: Capture,
    request: Any,
    error: BaseException,
    *,
    charge: Charge = NOTHING,
    status: str = states.FAILURE,
    closes: tuple[str, ...] = (),
    cancels: tuple[str, ...] = (),
    inside: bool = False,
    ran: bool = False,
    dropped: bool = False,
) -> bool:
    """Commit a failure, or with ``status`` REVOKED a cancelled step; False when it is not the step's answer.

    ``ran``: the cancelled step had started. ``inside``: an agent ends by itself. ``dropped``: a person gave it up.
    An undo that has failed becomes a dead letter instead: a person is to see to it.
    """
    name = getattr(request, "task", None) or ""
    if status == states.FAILURE and not dropped and (getattr(request, HEADER, None) or {}).get("ud"):
        _condemn_undo(store, holder, error, charge, name=name)
        return True
    wire = error_to_wire(error, step=name, step_id=holder.id)
    line = line_of(error)
    outcome = "revoked" if status == states.REVOKED else "error"
    results = [(key, _having_run(meta) if ran and key == holder.id else meta) for key, meta in caught.results]
    results = _for_first(results, request)
    return keep_trying(
        lambda: store.commit(
            holder,
            mode="done",
            status=status,
            results=results,
            joins=caught.joins,
            offers=caught.offers,
            arrivals=_of_first(caught.arrivals, request),
            entry=_entry(request, outcome, wire, ran=ran, tokens=charge.usage.get("tokens", 0)),
            tells=_tells(request, wire),
            error=line,
            usage=charge.usage,
            accounts=charge.accounts,
            settles=charge.settles,
            closes=closes,
            cancels=cancels,
            inside=inside,
            name=name,
        )
    ).answers


def _condemn_undo(store: Store, holder: Holder, error: BaseException, charge: Charge, *, name: str) -> None:
    logger.error("undo_failed run=%s step=%s id=%s: %s", holder.root, name, holder.id, line_of(error))
    told = {"usage": charge.usage, "accounts": list(charge.accounts) if charge.usage else None, "m": charge.settles}
    given = {field: value for field, value in told.items() if value}
    held = keep_trying(
        lambda: store.condemn(
            holder.worker, holder.take, why="undo failed", words=line_of(error), charge=given, holder=holder
        )
    )
    if not held:
        store.expect_held([0, b"", b"", b""], holder, name)


def commit_revoked(store: Store, holder: Holder, caught: Capture, request: Any, reason: str) -> None:
    """Commit that a step was revoked, so that its joins and its parent go on."""
    name = getattr(request, "task", None) or holder.id
    error = StepFailed(step=name, step_id=holder.id, error_type="Revoked", message=reason or "revoked")
    # Celery's word for one that ran; what expired or was revoked while it waited never did.
    commit_failure(store, holder, caught, request, error, status=states.REVOKED, ran=reason == "terminated")


def line_of(error: BaseException) -> str:
    """Return an error as one line for listings."""
    return f"{type(error).__name__}: {text_of(error)}"[:500]


def _having_run(meta: str) -> str:
    """Return Celery's meta with our mark: whoever undoes must know that there may be something to undo."""
    return dumps({**loads(meta), "ran": 1})


def tell_behind(store: Store, request: Any, error: BaseException, meta: Callable[[str], str]) -> None:
    """Tell who waits for the end of a chain that this plain task has broken; a plain task has no commit for it.

    ``meta`` makes Celery's meta of the failure for a task id.
    """
    chain = getattr(request, "chain", None) or []
    root = getattr(request, "root_id", None)
    if not chain or root is None:
        return
    wire = error_to_wire(error, step=getattr(request, "task", None) or "", step_id=request.id)
    ids = [signature["options"]["task_id"] for signature in chain if signature["options"].get("task_id")]
    store.fail_behind(root, [(task_id, meta(task_id)) for task_id in ids], _tells(request, wire))


def _tells(request: Any, error: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what agents are told that await the end of a canvas in which this task has failed.

    The end itself, which carries the agent's address, never runs.
    """
    return [
        (ours["pr"], dumps({"k": "result", "id": ours["ak"], "s": "error", "v": error}))
        for ours in _addresses(getattr(request, "chain", None) or [])
    ]


def _addresses(signatures: Any) -> Iterator[dict[str, Any]]:
    for signature in signatures:
        ours = ((signature.get("options") or {}).get("headers") or {}).get(HEADER) or {}
        if "ak" in ours:
            yield ours
        inner = signature.get("kwargs") or {}
        if signature.get("subtask_type") == "chord" and inner.get("body"):
            yield from _addresses([inner["body"]])
        if signature.get("subtask_type") in ("chain", "group"):
            yield from _addresses(inner.get("tasks") or [])
        yield from _addresses((signature.get("options") or {}).get("chain") or [])


def _for_first(results: list[tuple[str, str]], request: Any) -> list[tuple[str, str]]:
    """Return a hedge's outcomes, its own also under the id of the step that it answers for."""
    first = (getattr(request, HEADER, None) or {}).get(HEDGED)
    if first is None:
        return results
    return [
        *results,
        *((first, dumps({**loads(meta), "task_id": first})) for key, meta in results if key == request.id),
    ]


def _of_first(arrivals: list[Arrival], request: Any) -> list[Arrival]:
    """Return where a hedge arrives: at the place of the step that it answers for."""
    first = (getattr(request, HEADER, None) or {}).get(HEDGED)
    if first is None:
        return arrivals
    return [replace(each, index=str(each.index).replace(request.id, first)) for each in arrivals]


def _entry(
    request: Any,
    outcome: str,
    value: Any,
    inline_bytes: int | None = None,
    *,
    ran: bool = False,
    tokens: int = 0,
    cached: bool = False,
) -> str | None:
    """Return what the parent's log is told of a step; None when no agent asked for it. ``tokens``: what it has used.

    A value of more than ``inline_bytes`` is left where the step's result stands.
    """
    ours = getattr(request, HEADER, None) or {}
    ask = ours.get("ak")
    if ask is None:
        return None
    text = dumps(value)
    head = {"k": "result", "id": ask, "s": outcome} | ({"u": tokens} if tokens else {}) | ({"hit": 1} if cached else {})
    if HEDGED in ours:
        head["by"] = request.id
    if inline_bytes is None or len(text) <= inline_bytes:
        head |= {"ran": 1} if ran else {}
        return dumps(head)[:-1] + f',"v":{text}}}'
    return dumps({**head, "ref": 1})
