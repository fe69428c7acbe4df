"""Tells Sentry of failures, losses and dead letters: an event each, with run, agent, step, attempt and pool as tags.

Where neither the application nor the settings turn Sentry on, its package is not even imported. Nothing here waits for
Sentry: events go out in a thread of its own, which drops them when too many wait.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from agentq.core.errors import InvalidSetting
from agentq.engine.watching import Trouble, Watcher
from agentq.observability.discretion import without_values

if TYPE_CHECKING:
    from sentry_sdk.types import Event, Hint

    from agentq.engine.ending import Ending

logger = logging.getLogger(__name__)

FLUSH_S: Final = 2.0
"""For what still waits when a process ends; Sentry's own default."""

MECHANISM: Final = "agentq"

TOLD_WORDS: Final = frozenset({"poison", "unknown task"})
"""Reasons of dead letters whose words are agentq's own; others quote the message."""


class Sentry(Watcher):
    """Watches for Sentry's client of this process, the application's own or the one that ``dsn`` asks for.

    Args:
        dsn: where to, when the application does not say so itself by ``sentry_sdk.init``; None: only then.
        is_of_a_step: whether Celery runs a step here, and no plain task.
        is_told: whether a line of the log tells what is told here.
    """

    def __init__(
        self,
        *,
        dsn: str | None,
        is_of_a_step: Callable[[], bool],
        is_told: Callable[[logging.LogRecord], bool],
    ) -> None:
        self._dsn = dsn
        self._is_of_a_step = is_of_a_step
        self._is_told = is_told
        self._own: Any = None
        self._listens = False

    def begin(self) -> None:
        """Turn Sentry on in a worker if the settings say so; raises InvalidSetting without the package."""
        if self._dsn is not None and not self.is_on():
            self._start(self._dsn)
        self._listen()

    def begin_child(self) -> None:
        """Give a child a client, or at least connections, of its own: what two processes send on one is lost."""
        if self.is_on():
            if self._dsn is not None and self._own is not None and self._is_own():
                self._start(self._dsn)
            else:
                _forget_connections()
        self._listen()

    def is_on(self) -> bool:
        """Whether Sentry is turned on in this process."""
        package = sys.modules.get("sentry_sdk")
        # In the midst of its import it has nothing yet.
        get_client = getattr(package, "get_client", None)
        return get_client is not None and bool(get_client().is_active())

    def around(self, attempt: Ending) -> AbstractContextManager[object]:
        """Return a scope for the attempt, whose tags everything has that is told from within."""
        return _scope_of(attempt) if self.is_on() else _NOTHING

    def tell(self, make: Callable[[], Trouble]) -> None:
        """Send an event of the trouble; a step must not fail because that cannot be done."""
        if not self.is_on():
            return
        try:
            trouble = make()
            if not trouble.expected:
                self._listen()
                _send(trouble)
        except Exception as error:
            logger.warning("sentry_failed: %s: %s", type(error).__name__, error)

    def flush(self) -> None:
        """Return when all is sent, or after two seconds."""
        if self.is_on():
            import sentry_sdk

            sentry_sdk.flush(timeout=FLUSH_S)

    def _start(self, dsn: str) -> None:
        try:
            import sentry_sdk
            from sentry_sdk.integrations.celery import CeleryIntegration
        except ImportError as error:
            raise InvalidSetting(
                name="sentry_dsn",
                reason="the package sentry-sdk is not installed: pip install 'agentq-celery[sentry]', or unset it",
            ) from error
        sentry_sdk.init(
            dsn=dsn,
            include_local_variables=False,
            # What is not asked for may tell of people: commands of databases, URLs, prompts of models.
            auto_enabling_integrations=False,
            integrations=[CeleryIntegration(propagate_traces=False)],
        )
        self._own = sentry_sdk.get_client()

    def _is_own(self) -> bool:
        import sentry_sdk

        return sentry_sdk.get_client() is self._own

    def _listen(self) -> None:
        """Have Sentry drop what is told twice, from now on, whoever turns it on."""
        if self._listens or not self.is_on():
            return
        from sentry_sdk.scope import add_global_event_processor

        add_global_event_processor(self._unless_told)
        self._listens = True

    def _unless_told(self, event: Event, hint: Hint) -> Event | None:
        record = hint.get("log_record")
        if record is not None:
            return None if self._is_told(record) else event
        return None if _is_celerys(event) and self._is_of_a_step() else event


def _forget_connections() -> None:
    """Close what the client has inherited over a fork; the main process's own stay open."""
    import sentry_sdk

    pool = getattr(sentry_sdk.get_client().transport, "_pool", None)
    clear = getattr(pool, "clear", None)
    if clear is not None:
        clear()


_NOTHING: Final[AbstractContextManager[object]] = nullcontext()


@contextmanager
def _scope_of(attempt: Ending) -> Iterator[object]:
    import sentry_sdk

    with sentry_sdk.isolation_scope() as scope:
        # Those of the step that this child, or thread, ran before.
        scope.clear_breadcrumbs()
        ours = attempt.ours
        scope.set_tags(
            {
                "run": attempt.holder.id if attempt.task.is_agent else ours.get("pr") or attempt.holder.root,
                "step": attempt.task.name,
                "step_id": attempt.holder.id,
                "attempt": str(attempt.number),
            }
        )
        yield scope


def _is_celerys(event: Event) -> bool:
    values = (event.get("exception") or {}).get("values") or ()
    return any(((value or {}).get("mechanism") or {}).get("type") == "celery" for value in values)


def _send(trouble: Trouble) -> None:
    import sentry_sdk

    options = sentry_sdk.get_client().options
    personal = _may_tell_values(options)
    event, hint = _of_an_error(trouble.error, options, personal) if trouble.error is not None else (_line(trouble), {})
    event["timestamp"] = trouble.at if trouble.at is not None else datetime.now(UTC)
    event["transaction"] = trouble.step or ""
    event["contexts"] = {"agentq": {name: value for name, value in _facts(trouble).items() if value}}
    if personal and trouble.error is not None:
        args, kwargs = trouble.arguments
        event["extra"] = {"arguments": {"args": list(args), "kwargs": dict(kwargs)}}
    with sentry_sdk.new_scope() as scope:
        scope.set_tags({name: value for name, value in _tags(trouble).items() if value})
        for line in trouble.earlier:
            said = line if personal else ": ".join(line.split(": ")[:2])
            scope.add_breadcrumb(category="agentq.attempt", level="warning", message=said)
        sentry_sdk.capture_event(event, hint=hint)


def _of_an_error(error: BaseException, options: dict[str, Any], personal: bool) -> tuple[Event, Hint]:
    from sentry_sdk.utils import event_from_exception, get_error_message

    event, hint = event_from_exception(
        error, client_options=dict(options), mechanism={"type": MECHANISM, "handled": False}
    )
    if not personal:
        # The frames of a step's function hold its arguments.
        for value in (event.get("exception") or {}).get("values") or ():
            for frame in (value.get("stacktrace") or {}).get("frames") or ():
                frame.pop("vars", None)
        texts = without_values(error, get_error_message)
        for value in (event.get("exception") or {}).get("values") or ():
            value["value"] = texts.get(value.get("value"), value.get("value"))
    return event, hint


def _may_tell_values(options: Mapping[str, Any]) -> bool:
    """Whether the application wants arguments of tasks told: by ``data_collection``, or as older versions have it."""
    collected = options.get("data_collection") or {}
    if collected.get("provided_by_user"):
        return bool(collected.get("queues"))
    return bool(options.get("send_default_pii"))


def _line(trouble: Trouble) -> Event:
    step = trouble.step or "a message that nobody can read"
    where = f" with its worker {trouble.worker}" if trouble.worker else ""
    if trouble.what == "lost":
        words = f"An attempt of {step} was lost{where}, and is made again."
    else:
        said = f": {trouble.words}" if trouble.words and trouble.reason in TOLD_WORDS else ""
        words = f"{step} is a dead letter ({trouble.reason}){said}: agentq dead list"
    return {
        "message": words,
        "level": "warning" if trouble.what == "lost" else "error",
        "logger": "agentq",
        "fingerprint": ["agentq", trouble.what, trouble.reason, step],
    }


def _tags(trouble: Trouble) -> dict[str, str | None]:
    return {
        "run": trouble.run_id,
        "agent": trouble.agent,
        "step": trouble.step,
        "step_id": trouble.step_id,
        "attempt": str(trouble.attempt) if trouble.attempt else None,
        "pool": trouble.pool,
    }


def _facts(trouble: Trouble) -> dict[str, Any]:
    return {"what": trouble.what, "reason": trouble.reason, "worker": trouble.worker, **_tags(trouble)}
