"""Steps as Celery tasks: ordinary to call, typed, and with an outcome that is committed once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, ParamSpec, TypeVar, cast

from celery.canvas import Signature, signature
from celery.exceptions import Ignore

from agentq.core.codec import to_jsonable
from agentq.core.errors import InvalidArguments, UsageError
from agentq.core.hedging import HedgeAfter, read_hedge
from agentq.core.models import Needs, Priority
from agentq.core.routes import OnFull, Tier
from agentq.core.schema import CallSchema
from agentq.engine import afloat, capture, single
from agentq.engine.attempt import Attempt, in_place
from agentq.engine.batch import batch_of, likeness_of, template_of
from agentq.engine.binding import binding_of, find_binding
from agentq.engine.budgets import ACCOUNTS, DEPTH, inherited, own_accounts, tenant_account
from agentq.engine.dispatch import ending
from agentq.engine.ending import CAUGHT
from agentq.engine.messages import DELAY, HEADER, HEDGE, HEDGED, RESOURCES
from agentq.engine.options import CallOptions, StepOptions
from agentq.engine.outcome import RAISED, holder_of
from agentq.engine.request import StepRequest
from agentq.engine.room import patiently
from agentq.engine.routing import apply_route, limits_in
from agentq.engine.this_step import current_attempt

if TYPE_CHECKING:

    class Task:
        """Celery's class for type checkers. Seen as Any, a step would pass for a function of any arguments."""

        def __getattr__(self, name: str) -> Any: ...
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
        def apply_async(self, *args: Any, **kwargs: Any) -> Any: ...
        def retry(self, *args: Any, **kwargs: Any) -> Any: ...
        def replace(self, sig: Any) -> Any: ...

else:
    from celery import Task

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
Self = TypeVar("Self", bound="Step[..., Any]")

KEPT = ("pr", "ak", "jr", "jn", "ji", "cd", ACCOUNTS, DEPTH)
"""Fields of our header that a step's successor takes over."""

USING = "agentq_using"
"""Option of a signature: the call options of the copy that it was made from."""


class Step(Task, Generic[P, R]):
    """A step: a Celery task whose outcome is a checkpoint.

    ``delay``, ``apply_async``, ``s``, ``chain``, ``group``, ``chord``, ``replace`` and ``retry`` work as for any task.
    """

    abstract = True
    is_agent: ClassVar[bool] = False
    kind: ClassVar[str] = "step"

    agentq: StepOptions = StepOptions()
    call: CallOptions = CallOptions()

    Request = StepRequest
    Strategy = "agentq.engine.strategy:strategy"
    typing = False
    acks_late = True
    acks_on_failure_or_timeout = True
    reject_on_worker_lost = True

    @property
    def schema(self) -> CallSchema:
        """The parameters and the result, by the function's type hints."""
        found = self.__dict__.get("_schema")
        if found is None:
            found = CallSchema.of(self.function, skip_first=self.is_agent)
            self.__dict__["_schema"] = found
        return cast(CallSchema, found)

    @property
    def function(self) -> Callable[..., Any]:
        """The function as it was written."""
        return cast("Callable[..., Any]", self.run)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function in place; in a worker, as the attempt that the message is."""
        request = self.request
        if request.called_directly:
            return cast(R, super().__call__(*args, **kwargs))
        return cast(R, self.run_attempt(request, list(args), dict(kwargs)))

    def run_attempt(self, request: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Run and commit the attempt that a request is; return the encoded result, or raise what Celery is to tell."""
        raised: BaseException | None = getattr(request, RAISED, None)
        if raised is not None:
            raise raised
        holder = holder_of(request)
        if holder is None:
            return self._run_eagerly(args, kwargs)
        attempt = afloat.begun_attempt(holder, request) or Attempt(self, binding_of(self.app), holder, request)
        return attempt.run(args, kwargs)

    @property
    def is_traced_shortly(self) -> bool:
        """Whether nobody has put something around ``__call__``."""
        return type(self).__call__ is _CALLS

    def _run_eagerly(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Run without a record: ``task_always_eager`` and ``apply``."""
        typed_args, typed_kwargs = self.schema.decode(args, kwargs)
        return self.schema.encode_result(in_place(self.run(*typed_args, **typed_kwargs)))

    # -- calling

    def using(
        self: Self,
        *,
        priority: Priority | None = None,
        key: str | None = None,
        tenant: str | None = None,
        needs: Needs | None = None,
        timeout: timedelta | None = None,
        pool: str | None = None,
        queue: str | None = None,
        prefer: Needs | None = None,
        tier: Tier | None = None,
        deadline: timedelta | None = None,
        on_full: OnFull | None = None,
        hedge_after: HedgeAfter | None = None,
    ) -> Self:
        """Return the same step or agent, whose calls have these options; the original stays as it is."""
        if hedge_after is not None and (self.is_agent or self.agentq.undo is not None):
            reason = "only a step gets a second one beside it, and only one without an undo=: it would be done twice"
            raise InvalidArguments(step=self.name, parameter="hedge_after", value=hedge_after, reason=reason)
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.call = self.call.with_(
            priority=priority,
            key=key,
            tenant=tenant,
            needs=needs,
            timeout=timeout,
            pool=pool,
            queue=queue,
            prefer=prefer,
            tier=tier,
            deadline=deadline,
            on_full=on_full,
            hedge_after=hedge_after,
        )
        return copy

    def subtask(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> Signature:
        """Return a signature that carries this copy's call options."""
        wire = self.call.to_wire()
        if wire:
            starkwargs["options"] = {**(starkwargs.get("options") or {}), USING: wire}
        return signature(self, args, *starargs, app=self.app, **starkwargs)

    def apply_async(
        self,
        args: Any = None,
        kwargs: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: str | None = None,
        **options: Any,
    ) -> Any:
        """Check the arguments by their type hints, record the step and queue it.

        Raises InvalidArguments, before anything is sent, naming the parameter and the value.
        """
        call = self.call
        if USING in options:
            call = CallOptions.from_wire(options.pop(USING))
        # Once: they may be an iterator.
        args, kwargs = list(args or ()), dict(kwargs or {})
        plain = task_id is None and producer is None and link is None and link_error is None and shadow is None
        binding = find_binding(self.app)
        alike = single.alike(self, binding, call, options, args, kwargs) if plain and binding is not None else None
        if alike is not None:
            task_id, result = alike.send(self, *self.schema.encode(args, kwargs))
            if result is not None:
                return result
        sent: dict[str, Any] = {"producer": producer, "link": link, "link_error": link_error, "shadow": shadow}
        if binding is None:
            # A shared step in an app without agentq: a plain producer, whose message a worker of ours records.
            args, kwargs = self.schema.encode(args, kwargs)
            return super().apply_async(args, kwargs, task_id=task_id, **sent, **options)
        if self.app.conf.task_always_eager:
            self._refuse_eager()
        batch = batch_of(producer, options)
        likeness = likeness_of(self, call, options, link, link_error, shadow) if batch is not None else None
        if capture.active() is None:
            args, kwargs = self.schema.encode(args, kwargs)
        else:
            # A step of a chain that goes on: the attempt itself refuses what does not fit, as its own failure.
            args, kwargs = to_jsonable(args), to_jsonable(kwargs)
        if batch is None or task_id is None:
            return patiently(
                self.app, call, lambda: self._publish(call, args, kwargs, task_id=task_id, **sent, **dict(options))
            )
        template = batch.template_for(likeness)
        if template is not None:
            batch.add([template.offer(task_id, options["group_index"], args, kwargs)])
            return self.AsyncResult(task_id)
        with capture.capturing() as caught:
            result = self._publish(call, args, kwargs, task_id=task_id, **sent, **options)
        batch.learn(call, likeness, caught.offers, template_of(self, options, caught.offers))
        return result

    def _publish(self, call: CallOptions, args: list[Any], kwargs: dict[str, Any], **options: Any) -> Any:
        """Send what is encoded the way that Celery sends it."""
        headers = dict(options.pop("headers", None) or {})
        ours = self.header_of(call, args, kwargs)
        ours.update(headers.get(HEADER) or {})
        if ours.get("ud"):
            # What was done is taken back also when the budget, or what is left of it, would not allow it.
            own = own_accounts(self.agentq.budgets, agent=self.name, tenant=None)
            ours[ACCOUNTS] = [account for account in own if account["k"] == "self"]
        apply_route(self, call, options, ours)
        if options.get("countdown"):
            # Celery makes an ETA of it by this machine's clock, which may be another than the server's.
            ours[DELAY] = max(round(options["countdown"] * 1000), 0)
        self._limit(call, options)
        options["headers"] = {**headers, HEADER: ours}
        # As a tuple, as which Celery shows arguments to people.
        return super().apply_async(tuple(args), kwargs, **options)

    def _limit(self, call: CallOptions, options: dict[str, Any]) -> None:
        """Put the attempt's time limits on the message: the call's, the step's, its pool's, or the app's default."""
        binding = binding_of(self.app)
        limits = binding.limits
        if call.timeout is not None:
            options.update(limits_of(call.timeout, limits.grace_s))
            return
        # With a soft limit beyond the hard one Celery would never look at the hard one.
        given = (self.soft_time_limit, self.time_limit, options.get("time_limit"))
        if not self.is_agent and all(limit is None for limit in given):
            soft, hard = options.get("soft_time_limit"), None
            if soft is None:
                soft, hard = limits_in(options["queue"], binding)
            options["soft_time_limit"] = limits.step_s if soft is None else soft
            options["time_limit"] = options["soft_time_limit"] + limits.grace_s if hard is None else hard

    def _refuse_eager(self) -> None:
        """Agents cannot run eagerly; steps can."""

    def header_of(self, call: CallOptions, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return our header's fields for a call: what the store records of the step."""
        ours: dict[str, Any] = {"k": "s"}
        if self.agentq.resources:
            ours[RESOURCES] = [each.name for each in self.agentq.resources]
        hedge = call.hedge_after if call.hedge_after is not None else self.agentq.hedge_after
        if hedge is not None:
            ours[HEDGE] = read_hedge(hedge)
        card: dict[str, Any] = {}
        above = current_attempt.get()
        tenant = call.tenant
        if tenant is None and above is not None:
            tenant = (above.ours.get("cd") or {}).get("tenant")
        if tenant is not None:
            card["tenant"] = tenant
        if card:
            ours["cd"] = card
        accounts, depth = inherited(above)
        if above is None and tenant is not None and (daily := binding_of(self.app).tenant_budget) is not None:
            accounts.append(tenant_account(daily, tenant))
        accounts += own_accounts(self.agentq.budgets, agent=self.name, tenant=tenant)
        if accounts:
            ours[ACCOUNTS], ours[DEPTH] = accounts, depth
        return ours

    def start_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Queue the step when Django's current transaction commits; at once where there is none.

        Needs Django. The arguments are checked at once.
        """
        from django.db import transaction

        self.schema.encode(list(args), dict(kwargs))
        transaction.on_commit(lambda: self.apply_async(args, kwargs))

    def delay_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Do what Celery's own Django task class does under this name."""
        self.apply_async_on_commit(args, kwargs)

    def apply_async_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """Do what Celery's own Django task class does under this name; takes what ``apply_async`` takes."""
        from django.db import transaction

        transaction.on_commit(lambda: self.apply_async(*args, **kwargs))

    # -- what Celery's own ways out would publish is caught for the commit

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        """Run the step again later, as ``Task.retry`` says; recorded with the commit of this attempt."""
        if holder_of(self.request) is None:
            return super().retry(*args, **kwargs)
        attempt = current_attempt.get()
        if not isinstance(attempt, Attempt):
            return super().retry(*args, **kwargs)
        headers = {HEADER: {**attempt.ours, "n": attempt.number + 1}}
        with attempt.whole_request(), capture.capturing() as caught:
            try:
                return super().retry(*args, headers=headers, **kwargs)
            finally:
                setattr(self.request, CAUGHT, caught)

    def replace(self, sig: Signature) -> NoReturn:
        """Replace this step by ``sig``, which takes over its id; recorded with the commit of this attempt."""
        if holder_of(self.request) is None:
            super().replace(sig)
        attempt = current_attempt.get()
        if not isinstance(attempt, Attempt):
            super().replace(sig)
            raise Ignore("replaced")
        if HEDGED in attempt.ours:
            raise UsageError(
                f"Step {attempt.step_id} is the hedge of {attempt.ours[HEDGED]} and cannot be replaced: the first one "
                "goes on alone."
            )
        kept: dict[str, Any] = {name: attempt.ours[name] for name in KEPT if name in attempt.ours}
        successor = ending(sig, kept, self.app)
        with attempt.whole_request(), capture.capturing() as caught:
            try:
                super().replace(successor)
            except Ignore:
                setattr(self.request, CAUGHT, caught)
                raise
        raise Ignore("replaced")


_CALLS = Step.__call__


def limits_of(timeout: timedelta, grace_s: float) -> dict[str, float]:
    """Return Celery's limits for a timeout: soft at its end, hard after the grace."""
    seconds = timeout.total_seconds()
    return {"soft_time_limit": seconds, "time_limit": seconds + grace_s}
