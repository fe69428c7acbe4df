"""One try of a step in a worker: run the function, catch what Celery would send, commit it all at once."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from celery import states
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from celery.utils.log import get_logger

from agentq.core.codec import dumps, loads
from agentq.core.errors import CalledOff, InvalidResult, RunCancelled, RunError, StaleHolder, StepTimeout
from agentq.core.lazy import LazyList
from agentq.engine import exits, going_on, joins, outcome, paces, realloop, recall
from agentq.engine.admission import admit
from agentq.engine.binding import Binding, TurnEnd
from agentq.engine.cached import NOTHING
from agentq.engine.capture import Capture
from agentq.engine.ending import CAUGHT, Again, Interrupted, Waits
from agentq.engine.keeper.claims import claim
from agentq.engine.messages import HOLDER_HEADER, PAYLOAD
from agentq.engine.outcome import COMMITTED
from agentq.engine.resources import open_all
from agentq.engine.this_step import current_attempt
from agentq.engine.trying import Trying, inspect_result
from agentq.store.refs import Holder

if TYPE_CHECKING:
    from agentq.engine.task import Step

logger = get_logger(__name__)

EARLY_S = 0.25
"""A soft limit that comes by so much too soon is none: two clocks differ by less."""


class Attempt(Trying):
    """One try of a step.

    Attributes:
        parent: run id of the agent that asked for the step; None in canvas.
        run_id: the run that its history belongs to.
        begun: its function's coroutine, where that has run before the attempt's own code; see ``afloat``.
    """

    def __init__(self, task: Step[..., Any], binding: Binding, holder: Holder, request: Any) -> None:
        super().__init__(task, binding, holder, request)
        self.parent: str | None = self.ours.get("pr")
        self.run_id = holder.id if task.is_agent or self.parent is None else self.parent
        self.step_id = holder.id
        self.stop = realloop.Stop()
        self.handed_over = False
        self.began = time.monotonic()
        self._hear_again: Callable[[], Any] | None = None
        self.arguments = ((), {})
        self.begun: realloop.Begun | None = None

    def run(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Run and commit; return the encoded value. Raises what Celery's tracer shall see, after the commit."""
        # Celery's tracer would publish these before it stores the result; they go out with the commit instead.
        chain, callbacks = self._onward_of_request = (self.request.chain, self.request.callbacks)
        self.request.chain = self.request.callbacks = None
        token = current_attempt.set(self)
        try:
            if self.begun is None:
                self.claim = claim(self.holder.take, self._hard_limit_s)
            with self.claim:
                return self._unless_called_off(args, kwargs, chain, callbacks)
        except StaleHolder as stale:
            # Another attempt owns the step: nothing of this one may show.
            logger.warning("attempt_dropped: %s", stale)
            setattr(self.request, COMMITTED, True)
            raise Ignore(str(stale)) from stale
        finally:
            current_attempt.reset(token)
            if self._hear_again is not None:
                self._hear_again()

    def _unstow(self) -> None:
        """Put arguments that were too large for the message back into the request; a second call finds them there."""
        name = self.ours.pop(PAYLOAD, None)
        if name is None:
            return
        found = outcome.keep_trying(lambda: self.store.payload(self.holder.root, name))
        if found is None:
            raise RunError(
                f"The arguments of step {self.holder.id} are gone from the store: they were deleted by hand."
            )
        self.request.args, self.request.kwargs = loads(found)

    def _unless_called_off(self, args: list[Any], kwargs: dict[str, Any], chain: Any, callbacks: Any) -> Any:
        try:
            with recall.listed(self), self.binding.watcher.around(self):
                return self._run(args, kwargs, chain, callbacks)
        except CalledOff as unwanted:
            self._revoke(chain, ran=True)
            raise Ignore(str(unwanted)) from unwanted

    def _run(self, args: list[Any], kwargs: dict[str, Any], chain: Any, callbacks: Any) -> Any:
        wire = getattr(self.request, HOLDER_HEADER, None) or {}
        if wire.get("cancelled"):
            self._revoke(chain, ran=False)
            raise Ignore("its run was cancelled")
        try:
            end = self._contained(args, kwargs)
        except Again as again:
            self._again(again)
        except Waits as waits:
            setattr(self.request, COMMITTED, True)
            raise Ignore(str(waits)) from waits
        except Retry:
            self._onward(mode="again", chain=chain, callbacks=callbacks)
            raise
        except Ignore:
            if getattr(self.request, CAUGHT, None) is not None:
                self._onward(mode="replaced", chain=None, callbacks=None)
            else:
                self.succeed(None, Capture())
            raise
        except Reject as reject:
            if reject.requeue:
                self._give_back()
            else:
                self.request.chain = self._behind(chain)
                self.fail(reject)
            raise
        except CalledOff:
            raise
        except Interrupted as interrupted:
            if self.handed_over:
                self._give_back()
                raise Ignore("another worker goes on with it") from interrupted
            self.request.chain = self._behind(chain)
            self.fail(interrupted.error)
            raise interrupted.error from interrupted
        except Exception as error:
            self.request.chain = self._behind(chain)
            self.fail(error)
            raise
        if end.kind in ("parked", "restarted"):
            paces.note_turn(self.task.name, 0.0, rested=True)
            setattr(self.request, COMMITTED, True)
            raise Ignore(f"the run has {end.kind}")
        if end.error is not None:
            self.request.chain = self._behind(chain)
            status = states.REVOKED if end.kind == "cancelled" else states.FAILURE
            failure = exits.as_failure(end.error, step=self.task.name, step_id=self.step_id)
            self.fail(failure, status=status, end=end)
            raise failure
        return self._finish(end, chain, callbacks)

    def _give_back(self) -> None:
        """Let another worker have the step; nothing of this attempt is written."""
        outcome.keep_trying(lambda: self.store.requeue(self.holder.worker, self.holder.take))
        setattr(self.request, COMMITTED, True)

    def _revoke(self, chain: Any, *, ran: bool) -> None:
        self.request.chain = self._behind(chain)
        self.fail(RunCancelled(run_id=self.parent or self.holder.root), status=states.REVOKED, ran=ran)

    def _behind(self, chain: Any) -> Any:
        """Return the signatures that never run when this step fails: its chain, or the body that it was to send."""
        if self.task.name != joins.DISPATCH_TASK:
            return chain
        self._unstow()
        return list(joins.ends_of(self.request.args[0]))

    def _contained(self, args: list[Any], kwargs: dict[str, Any]) -> TurnEnd:
        try:
            with exits.one_process():
                if PAYLOAD in self.ours:
                    self._unstow()
                    args, kwargs = self.request.args, self.request.kwargs
                return self._value(args, kwargs)
        except BaseException as error:
            if exits.is_ordered(error):
                raise
            # Before the store is called for this one: no thread holds one connection while it waits for another.
            going_on.settle_here()
            # Of the worker's health neither a line nor a place that another keeps says anything.
            self.claim.counts = not isinstance(error, Waits) and not (isinstance(error, Again) and not error.counts)
            self.claim.failed = not isinstance(error, Ignore | Retry | Reject | CalledOff | Interrupted)
            failure = exits.as_failure(error, step=self.task.name, step_id=self.step_id)
            if failure is error:
                raise
            raise failure from error
        finally:
            self._hear_again = exits.ignore_soft_limit()
            self.claim.finish()

    def _value(self, args: list[Any], kwargs: dict[str, Any]) -> TurnEnd:
        resolved = joins.resolve(self.task.app, self.store, args) if self.begun is None else args
        if self.task.is_agent:
            self._refuse_overdue()
            if self.binding.run_turn is None:
                raise RuntimeError("no runtime was assembled for agents")
            # Read once: an agent's code must not wait for the server in between.
            self.arguments = (tuple(list(each) if isinstance(each, LazyList) else each for each in resolved), kwargs)
            if self.is_over_budget:
                admit(self)
            return self.binding.run_turn(self)
        if self.begun is None:
            self.arguments = self.task.schema.decode(resolved, kwargs)

        def call() -> Any:
            self._refuse_overdue()
            self.returned = self.invoke(*self.arguments)
            return self.accepted(self.returned)

        for middleware in reversed(self.binding.middleware):
            if middleware.concerns(self):
                call = _wrapped(middleware, self, call)
        return TurnEnd("value", value=call())

    def _refuse_overdue(self) -> None:
        """Return if the step may run; raises StepTimeout when its last attempt was killed at its hard limit.

        Whoever was killed could say nothing any more, so that the next one does, in front of the step's retry policy.
        """
        if (getattr(self.request, HOLDER_HEADER, None) or {}).get("overdue"):
            raise StepTimeout(step=self.task.name, step_id=self.step_id, seconds=self.hard_limit.total_seconds())

    @property
    def is_over_budget(self) -> bool:
        """Whether its budget had no room for the step when it was sent: it is counted by its admission, or refused."""
        return bool((getattr(self.request, HOLDER_HEADER, None) or {}).get("over_budget"))

    def accepted(self, value: Any) -> Any:
        """Return an answer as the step's encoded result.

        Raises InvalidResult when it does not fit the return hint or is too large, ResultRefused when the step's check
        says no.
        """
        encoded = self._checked(self.task.schema.encode_result(value))
        if self.task.agentq.check is not None:
            inspect_result(self.task, value)
        return encoded

    def _checked(self, value: Any) -> Any:
        """Return an encoded result; raises InvalidResult when it is larger than a result may be."""
        limit = self.binding.limits.result_bytes
        if isinstance(value, str | list | dict) and (size := len(dumps(value))) > limit:
            raise InvalidResult(
                step=self.task.name,
                value=f"{size} bytes",
                reason=f"it is larger than {limit} bytes (setting result_limit): put it into a file or an object store "
                "and return where it is",
            )
        return value

    def invoke(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the step's function once, in place; an ``async def`` one on the process's event loop."""
        try:
            if self.begun is not None:
                # Once: tried again in place, the function is called anew.
                begun, self.begun = self.begun, None
                return begun.result()
            self._open_resources()
            value = self.task.run(*args, **kwargs)
            return in_place(value, self.soft_limit, self.stop) if inspect.iscoroutine(value) else value
        except (realloop.Overdue, realloop.Stopped, SoftTimeLimitExceeded) as overdue:
            limit = self.soft_limit.total_seconds() if self.soft_limit is not None else 0.0
            error = StepTimeout(step=self.task.name, step_id=self.step_id, seconds=limit)
            if self._is_early(overdue, limit):
                raise Interrupted(error) from overdue
            raise error from overdue

    def _open_resources(self) -> None:
        named = [each for each in self.task.agentq.resources if not each.is_open]
        if named:
            open_all(named)
            # To load a model may take longer than the step that uses it.
            self.claim.extend()

    def _is_early(self, overdue: BaseException, limit: float) -> bool:
        """Whether the worker ended the function before its limit, because the step was called off (see ``recall``)."""
        if isinstance(overdue, realloop.Stopped):
            return True
        if not isinstance(overdue, SoftTimeLimitExceeded) or exits.is_due():
            return False
        return time.monotonic() - self.began < limit - EARLY_S

    @property
    def hard_limit(self) -> timedelta:
        """After which time the attempt is killed: the message's limit, the task's, else the app's default."""
        return timedelta(seconds=self._hard_limit_s)

    @property
    def _hard_limit_s(self) -> float:
        limits, defaults = self.request.timelimit, self.binding.limits
        return float((limits[0] if limits else None) or self.task.time_limit or defaults.step_s + defaults.grace_s)

    def call_other(self, other: Any) -> Any:
        """Call another function or step in place, with this step's arguments; return its answer as this step's result.

        Raises what ``accepted`` does.
        """
        self.fresh = NOTHING
        args, kwargs = self.arguments
        function = getattr(other, "run", other)
        try:
            value = in_place(function(*args, **kwargs), self.soft_limit, self.stop)
        except realloop.Stopped as stopped:
            raise Interrupted(stopped) from stopped
        return self.accepted(value)

    @staticmethod
    def name_of(other: Any) -> str:
        """Return the name of a function or step, for the history."""
        return str(getattr(other, "name", None) or getattr(other, "__qualname__", other))

    def note(self, kind: str, **fields: Any) -> None:
        """Put a line about this attempt into the run's history."""
        event = {
            "e": kind,
            "r": self.parent or self.holder.id,
            "s": self.holder.id,
            "n": self.task.name,
            **fields,
        }
        token = self.store.new_token()
        outcome.keep_trying(lambda: self.store.emit(self.holder, [dumps(event)], token=token))


def in_place(value: Any, limit: timedelta | None = None, stop: realloop.Stop | None = None) -> Any:
    """Return what a function returned; a coroutine is run to its end on the process's event loop."""
    return realloop.run(value, limit, stop) if inspect.iscoroutine(value) else value


def _wrapped(middleware: Any, attempt: Attempt, call: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: middleware(attempt, call)
