"""How an attempt ends at the store: what Celery would send is caught and goes out with the outcome, in one commit."""

from __future__ import annotations

import traceback as tracebacks
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from celery import states
from celery.exceptions import Ignore, Reject, Retry

from agentq.core.errors import CalledOff, RunCancelled
from agentq.core.models import Usage
from agentq.engine import capture, going_on, joins, outcome, spread
from agentq.engine.binding import Binding, TurnEnd
from agentq.engine.budgets import accounts_of, counts_storage
from agentq.engine.cached import NOTHING, answer_of
from agentq.engine.capture import Capture
from agentq.engine.keeper.claims import Claim
from agentq.engine.messages import HEADER
from agentq.engine.outcome import COMMITTED, Charge
from agentq.engine.watching import trouble_of
from agentq.store import Store
from agentq.store.refs import Holder

if TYPE_CHECKING:
    from agentq.engine.task import Step

CAUGHT = "agentq_caught"
"""Set on a request by ``Step.retry`` and ``Step.replace``: the messages that they would have sent."""


class Again(Exception):
    """Raised by middleware: the attempt failed with ``error``, and the step is to run again after ``delay``.

    ``changed``: arguments, by name, that the next attempt gets others of. Where it does not count, the step's function
    was not called: the next try has the same number.
    """

    def __init__(
        self,
        error: BaseException,
        delay: timedelta,
        *,
        changed: Mapping[str, Any] | None = None,
        counts: bool = True,
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.delay = delay
        self.changed = changed or {}
        self.counts = counts


class Interrupted(Exception):
    """The attempt was told to end before its time: it fails with ``error``, and nothing is tried in its place."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class Waits(Exception):
    """The attempt is over before it began: its guards have put the step into a line, and it is nobody's any more."""


CONTROL = (Again, Interrupted, Waits, Retry, Ignore, Reject)
"""What is no failure: middleware lets these pass."""


class Ending:
    """An attempt's ways to its outcome.

    Attributes:
        holder: names the attempt at the store.
        request: Celery's request.
        ours: our header's fields.
        number: which try this is, 1 for the first.
        spent: what the function said that it used.
        onward: what the function has sent on in Celery's ways, for the commit.
        admitted: its guards hold something for it, which its commit settles.
        call_went_well: what breakers hear of it; None when its function has not ended.
        fresh: what its function has returned, encoded, where that may be kept for others.
        cached: it was answered by the cache.
        has_rested: a turn that has asked for more than local calls, or has parked: it may wait for something.
        sends_behind: what is sent now goes on behind the step, and is no part of it.
        claim: the attempt's place on the keeper's page.
    """

    claim: Claim

    def __init__(self, task: Step[..., Any], binding: Binding, holder: Holder, request: Any) -> None:
        self.task = task
        self.binding = binding
        self.store: Store = binding.store
        self.holder = holder
        self.request = request
        self.ours: dict[str, Any] = getattr(request, HEADER, None) or {}
        self.number = int(self.ours.get("n", 1))
        self.spent: list[Usage] = []
        self.onward = Capture()
        self.admitted = False
        self.call_went_well: bool | None = None
        self.fresh: Any = NOTHING
        self.cached = False
        self.has_rested = False
        self.sends_behind = False
        self._onward_of_request: tuple[Any, Any] = (None, None)

    @contextmanager
    def whole_request(self) -> Iterator[None]:
        """Put the request's chain and callbacks back, for messages that carry the step on: retry and replace."""
        self.request.chain, self.request.callbacks = self._onward_of_request
        try:
            yield
        finally:
            self.request.chain = self.request.callbacks = None

    def _finish(self, end: TurnEnd, chain: Any, callbacks: Any) -> Any:
        value = end.value
        with capture.capturing() as caught:
            self.sends_behind = True
            self._dispatch(value, chain, callbacks)
            backend, request = self.task.backend, self.request
            if not self._ignores_result() and not request.ignore_result:
                caught.results.append((request.id, backend.success_meta(request.id, value, request)))
            if request.chord:
                backend.on_chord_part_return(request, states.SUCCESS, value)
        caught.merge(self.onward)
        caught.offers = spread.parcels(self, caught.offers)
        self.succeed(value, caught, end=end, streak=going_on.streak_here())
        return value

    def _charged(self, caught: Capture, *, keeps: dict[str, Any] | None = None) -> _Charged:
        """Give what was used to a commit; it stays unsettled if the commit is refused for being called off."""
        spent, accounts = list(self.spent), accounts_of(self)
        settles = self.settlement() if self.admitted else None
        if settles is not None and keeps is not None:
            settles["c"] = keeps
        usage = self.take_usage()
        if counts_storage(accounts):
            usage["storage_bytes"] = sum(len(meta) for _, meta in caught.results)
        return _Charged(self, spent, Charge(usage, accounts, settles))

    def settlement(self) -> dict[str, Any]:
        """Return how what the guards reserved ends: for breakers, for rates, and what was used."""
        found: dict[str, Any] = {}
        if self.call_went_well is not None:
            found["ok"] = int(self.call_went_well)
        if self.spent:
            found["tokens"] = sum(each.tokens_in + each.tokens_out for each in self.spent)
        return found

    def _ignores_result(self) -> bool:
        """Whether nobody reads the result: not asked for by an agent or a join, and ignored as Celery says."""
        if self.ours.get("ak") is not None or self.ours.get("jn") is not None:
            return False
        asked = self.request.__dict__.get("ignore_result")
        return bool(self.task.ignore_result if asked is None else asked)

    def _dispatch(self, value: Any, chain: Any, callbacks: Any) -> None:
        """Send callbacks, then the chain's next task, as Celery's tracer would; the open capture catches them."""
        if not callbacks and not chain:
            return
        from celery.canvas import maybe_signature

        app = self.task.app
        common = {"parent_id": self.request.id, "root_id": self.request.root_id or self.request.id}
        for callback in callbacks or []:
            maybe_signature(callback, app=app).apply_async((value,), **common)
        if chain:
            maybe_signature(chain[-1], app=app).apply_async((value,), chain=chain[:-1], **common)

    def succeed(
        self, value: Any, caught: Capture, *, end: TurnEnd | None = None, streak: going_on.Streak | None = None
    ) -> None:
        """Commit a success, and go on with the streak."""
        terms = streak.terms(self) if streak is not None else None
        waiting = going_on.waiting_here(self.holder.take)
        with self._charged(caught, keeps=answer_of(self, value) if self.admitted else None) as charge:
            # Large arguments of what goes on are written before it is sent, and the server may be away then already.
            under_way = outcome.keep_trying(
                lambda: outcome.begin_success(
                    self.store,
                    self.holder,
                    caught,
                    self.request,
                    value,
                    inline_bytes=self.binding.limits.inline_bytes,
                    charge=charge,
                    closes=end.closes if end is not None else (),
                    cancels=end.cancels if end is not None else (),
                    going_on=terms,
                    cached=self.cached,
                    hears=waiting.place if waiting is not None else None,
                    ran_ms=streak.ran_ms() if streak is not None else None,
                )
            )
            if streak is None or charge.usage or not streak.leave(self, under_way):
                committed = outcome.keep_trying(under_way.result)
                if waiting is not None:
                    waiting.lines = committed.heard
                if streak is not None and terms is not None:
                    streak.go_on(committed.following)
        setattr(self.request, COMMITTED, True)

    def revoke_late(self) -> None:
        """Commit that the step was called off, as the answer to the commit of its success has said."""
        setattr(self.request, COMMITTED, False)
        self.request.chain = self._onward_of_request[0]
        self.fail(RunCancelled(run_id=self.ours.get("pr") or self.holder.root), status=states.REVOKED, ran=True)

    def fail(
        self, error: BaseException, *, status: str = states.FAILURE, end: TurnEnd | None = None, ran: bool = False
    ) -> None:
        """Commit a failure, for chain, joins and errbacks too; ``ran``: a revoked step that had started."""
        trace = "".join(tracebacks.format_exception(error))
        # Celery calls no errbacks for what was revoked.
        errbacks = status != states.REVOKED
        stored = not self._ignores_result() or self.task.store_errors_even_if_ignored
        with capture.capturing() as caught:
            self.task.backend.mark_as_failure(self.request.id, error, trace, self.request, stored, errbacks, status)
            if errbacks and self.task.name == joins.DISPATCH_TASK:
                joins.tell_body(self.task.app, self.request.args[0], error)
        with self._charged(caught) as charge:
            answers = outcome.commit_failure(
                self.store,
                self.holder,
                caught,
                self.request,
                error,
                status=status,
                charge=charge,
                closes=end.closes if end is not None else (),
                cancels=end.cancels if end is not None else (),
                inside=end is not None and not end.torn,
                ran=ran,
            )
        self.request.chain = None
        setattr(self.request, COMMITTED, True)
        # While its hedge still runs nothing has failed.
        if status == states.FAILURE and answers:
            self.binding.watcher.tell(lambda: trouble_of(self, error))

    def _onward(
        self,
        *,
        mode: str,
        chain: Any,
        callbacks: Any,
        error: BaseException | None = None,
        changed: str = "",
        idle: bool = False,
    ) -> None:
        """Commit what ``retry`` or ``replace`` would have sent: this step's next generation first, if it is there."""
        caught: Capture = getattr(self.request, CAUGHT, None) or Capture()
        own = [offer for offer in caught.offers if offer.id == self.holder.id]
        others = spread.parcels(self, [offer for offer in caught.offers if offer.id != self.holder.id])
        with self._charged(caught) as charge:
            outcome.keep_trying(
                lambda: self.store.commit(
                    self.holder,
                    mode="again" if own else "replaced",
                    status=states.RETRY,
                    results=caught.results,
                    joins=caught.joins,
                    offers=[*own, *others],
                    arrivals=caught.arrivals,
                    error=outcome.line_of(error) if error is not None else None,
                    changed=changed or None,
                    idle=idle,
                    usage=charge.usage,
                    accounts=charge.accounts,
                    settles=charge.settles,
                    name=self.task.name,
                )
            )
        setattr(self.request, COMMITTED, True)

    def take_usage(self) -> dict[str, int]:
        """Return what was said to be used since the last time, as the store counts it."""
        if not self.spent:
            return {}
        spent, self.spent[:] = list(self.spent), []
        return usage_of(spent)

    def settled(self) -> None:
        """Begin anew: what the guards held before was settled, with what was used until then."""
        self.spent.clear()
        self.call_went_well = None
        self.fresh = NOTHING
        self.admitted = False


class _Charged:
    """What a commit within it is charged with."""

    __slots__ = ("_attempt", "_charge", "_spent")

    def __init__(self, attempt: Ending, spent: list[Usage], charge: Charge) -> None:
        self._attempt = attempt
        self._spent = spent
        self._charge = charge

    def __enter__(self) -> Charge:
        return self._charge

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, CalledOff):
            self._attempt.spent[:0] = self._spent


def usage_of(spent: Sequence[Usage]) -> dict[str, int]:
    """Return what was said to be used, as the store counts it."""
    usage: dict[str, int] = {}
    for each in spent:
        for name, amount in (
            ("tokens", each.tokens_in + each.tokens_out),
            ("tokens_in", each.tokens_in),
            ("tokens_out", each.tokens_out),
            ("usd_micro", int(each.usd * 1_000_000)),
        ):
            if amount:
                usage[name] = usage.get(name, 0) + amount
    return usage
