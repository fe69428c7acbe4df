"""Celery's Redis result backend, in which a step's outcome is written only by its commit.

The values of chords meet in the store's joins, not in counters of the backend.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from time import monotonic
from typing import Any, Final

from celery import states
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.exceptions import BackendStoreError, TimeLimitExceeded
from celery.exceptions import TimeoutError as WaitedTooLong
from celery.result import GroupResult
from celery.utils.log import get_logger
from pydantic_core import PydanticSerializationError, to_json

from agentq.core.errors import AgentqError, CalledOff, RunCancelled, StaleHolder, StepTimeout, UsageError, from_wire
from agentq.engine import afterwords, capture, single
from agentq.engine.binding import find_binding
from agentq.engine.joins import body_offer, leaves, members_of
from agentq.engine.listening import IS_LOCKED, LateCanceller, Listener
from agentq.engine.messages import read_json
from agentq.engine.outcome import COMMITTED, commit_failure, commit_revoked, holder_of, keep_trying, tell_behind
from agentq.engine.watching import trouble_of_request
from agentq.store.refs import Arrival, Join

logger = get_logger(__name__)

LISTENS_S: Final = 1.0
"""So long a result is waited for where its call listens; what takes longer is waited for in Celery's way, which looks
every second whether its connection still lives, and calls whoever wants to be called meanwhile."""


class Backend(RedisBackend):
    """Where ``AsyncResult`` looks."""

    ResultConsumer = Listener if IS_LOCKED else LateCanceller

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        caught = capture.active()
        holder = holder_of(request)
        if caught is None and getattr(request, COMMITTED, False):
            return result
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        meta["task_id"] = task_id
        if caught is None and holder is None:
            self._store_plain(self.get_key_for_task(task_id), meta)
        elif caught is not None:
            caught.results.append((task_id, self._written(meta)))
        else:
            binding = find_binding(self.app)
            if binding is not None and holder is not None:
                # A step that says how far it is must not fail for a server that restarts.
                encoded, store = self._written(meta), binding.store
                keep_trying(lambda: store.progress(holder, encoded))
        return result

    def _store_plain(self, key: Any, meta: dict[str, Any]) -> None:
        """Store how a plain task stands, unless it has succeeded already.

        Celery's own way looks without the patience with which it writes: an outage or a failover between a task's
        end and the look would make a failure of its success.
        """
        stored = self.ensure(self.get, (key,))
        if stored and self.decode_result(stored)["status"] == states.SUCCESS:
            return
        try:
            self._set_with_state(key, self.encode(meta), meta["status"])
        except BackendStoreError as error:
            raise BackendStoreError(str(error), state=meta["status"], task_id=meta["task_id"]) from error

    def _get_task_meta_for(self, task_id: str) -> Any:
        meta = super()._get_task_meta_for(task_id)
        if meta["status"] == states.PENDING:
            binding = find_binding(self.app)
            if binding is not None and binding.store.is_begun(task_id):
                return {"status": states.STARTED, "result": None, "task_id": task_id}
        return meta

    def prepare_exception(self, exc: BaseException, serializer: str | None = None) -> Any:
        """Return an exception as JSON holds it; one of ours with its fields, so that it comes back as itself."""
        prepared = super().prepare_exception(exc, serializer)
        if isinstance(exc, AgentqError) and isinstance(prepared, dict):
            prepared["agentq"] = exc.to_wire()
        return prepared

    def exception_to_python(self, exc: Any) -> Any:
        """Return the exception that a stored failure tells of."""
        if isinstance(exc, dict) and isinstance(exc.get("agentq"), dict):
            return from_wire(exc["agentq"])
        return super().exception_to_python(exc)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do nothing: whoever waits for the result listens then, see ``listening``."""

    def add_pending_result(self, result: Any, *args: Any, **kwargs: Any) -> Any:
        """Listen to a result, unless its own call does so already; ``then`` and groups say how, ``get`` does not."""
        if not args and not kwargs and single.waits_for(result.id):
            return result
        return super().add_pending_result(result, *args, **kwargs)

    def wait_for_pending(
        self, result: Any, callback: Any = None, propagate: bool = True, timeout: float | None = None, **kwargs: Any
    ) -> Any:
        """Return a result's value when it has come: where its own call listens, as soon as that hears of it."""
        if kwargs.get("on_message") is None and single.waits_for(result.id):
            began = monotonic()
            if self._hears(result, LISTENS_S if timeout is None else min(timeout, LISTENS_S)):
                return result.maybe_throw(callback=callback, propagate=propagate)
            if timeout is not None and (timeout := timeout - (monotonic() - began)) <= 0:
                # What was told may have gone to somebody else, and the time to hear of it may be none.
                result._maybe_set_cache(self.get_task_meta(result.id, cache=False))
                if result._cache is not None:
                    return result.maybe_throw(callback=callback, propagate=propagate)
                raise WaitedTooLong("The operation timed out.")
        single.listen_no_more(result.id)
        if result._cache is None:
            # A call that a signal's handler made since `add_pending_result` may have taken its place.
            super().add_pending_result(result)
        return super().wait_for_pending(result, callback=callback, propagate=propagate, timeout=timeout, **kwargs)

    def _hears(self, result: Any, seconds: float) -> bool:
        """Tell whether a result has come within so many seconds."""
        ends = monotonic() + seconds
        with single.hearing(result.id) as hear:
            while (left := ends - monotonic()) > 0 and (told := hear(left)) is not None:
                # Whoever wrote it may have another configuration: compressed, it begins with a mark.
                meta = read_json(told) if self._is_plain and told[:1] == b"{" else self.decode(told)
                if meta.get("task_id") == result.id and meta["status"] in states.READY_STATES:
                    break
            else:
                return False
        single.has_heard(result.id)
        result._maybe_set_cache(meta)
        return True

    def mark_as_done(
        self,
        task_id: str,
        result: Any,
        request: Any = None,
        store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:
        """Store a success, unless the attempt has committed it already."""
        if not getattr(request, COMMITTED, False):
            super().mark_as_done(task_id, result, request, store_result, state)

    def success_meta(self, task_id: str, result: Any, request: Any) -> str:
        """Return what is stored of a step's success, whose result JSON can hold as it is.

        The same fields as Celery's own way leads to, at a fifth of its cost: that one looks up its configuration and
        the clock's zone for each result, and may write in other ways than JSON.
        """
        if self._is_plain:
            try:
                return to_json(self._success(task_id, result, request)).decode()
            except PydanticSerializationError:
                # Half a surrogate pair: JSON has a spelling for it, UTF-8 has none.
                pass
        meta = self._get_result_meta(
            result=self.encode_result(result, states.SUCCESS), state=states.SUCCESS, traceback=None, request=request
        )
        return str(self._written({**meta, "task_id": task_id}))

    def _written(self, meta: dict[str, Any]) -> Any:
        """Return what is stored of a step as Celery writes it, but not compressed.

        The server's scripts and agents read it as well; Celery tells by a mark what is compressed.
        """
        return self._encode(meta)[-1]

    def _success(self, task_id: str, result: Any, request: Any) -> dict[str, Any]:
        meta = {
            "status": states.SUCCESS,
            "result": result,
            "traceback": None,
            "children": [each.as_tuple() for each in request.children],
            "date_done": datetime.now(self._zone).isoformat(),
        }
        if request.group:
            meta["group_id"] = request.group
        if request.parent_id:
            meta["parent_id"] = request.parent_id
        return {**meta, "task_id": task_id}

    @cached_property
    def _zone(self) -> Any:
        """Which clock results are dated by; read once, as what follows."""
        return self.app.timezone

    @cached_property
    def _is_plain(self) -> bool:
        """Whether results are written as plain JSON with Celery's usual fields; read once, as a worker's tracers do."""
        # Celery before 5.7 compresses no results.
        compresses = getattr(self, "compression", None)
        return self.serializer == "json" and not compresses and not self.app.conf.result_extended

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Store a failure; a step's is committed, with its joins, chain and errbacks.

        Celery calls this from the worker's main process for time limits, and for what failed outside of the attempt.
        """
        if getattr(request, COMMITTED, False):
            return

        def mark() -> None:
            super(Backend, self).mark_as_failure(task_id, exc, traceback, request, store_result, call_errbacks, state)

        holder = holder_of(request)
        binding = find_binding(self.app)
        if holder is None or capture.active() is not None:
            mark()
            if capture.active() is None and binding is not None:
                tell_behind(
                    binding.store, request, exc, lambda behind: self._failure_meta(behind, exc, state, traceback)
                )
            return
        if binding is None:
            return
        if isinstance(exc, TimeLimitExceeded):
            exc = StepTimeout(step=getattr(request, "task", None) or "", step_id=holder.id, seconds=float(exc.args[0]))
        store = binding.store

        def conclude() -> None:
            try:
                with unless_stale(), capture.capturing() as caught:
                    mark()
                    answers = commit_failure(store, holder, caught, request, exc)
                    task = self.app.tasks.get(request.task)
                    if answers:
                        binding.watcher.tell(lambda: trouble_of_request(task, request, holder, store, exc))
            except CalledOff:
                self.mark_as_called_off(task_id, RunCancelled(run_id=holder.root), request)

        afterwords.say(conclude)

    def mark_as_called_off(self, task_id: str, why: RunCancelled, request: Any) -> None:
        """Commit that a step was stopped while it ran, since nobody wants it any more."""
        holder, binding = holder_of(request), find_binding(self.app)
        if holder is None or binding is None:
            return
        with unless_stale():
            with capture.capturing() as caught:
                super().mark_as_failure(task_id, why, None, request, True, False, states.REVOKED)
            commit_failure(binding.store, holder, caught, request, why, status=states.REVOKED, ran=True)

    def _failure_meta(self, task_id: str, exc: BaseException, state: str, traceback: str | None) -> str:
        result = self.encode_result(exc, state)
        meta = {**self._get_result_meta(result=result, state=state, traceback=traceback, request=None)}
        return str(self._written({**meta, "task_id": task_id}))

    def mark_as_retry(
        self,
        task_id: str,
        exc: BaseException,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        state: str = states.RETRY,
    ) -> Any:
        """Store that a task is tried again, unless the attempt has committed it already."""
        if getattr(request, COMMITTED, False):
            return None
        return super().mark_as_retry(task_id, exc, traceback, request, store_result, state)

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """Store a revocation; a step's is committed, so that its joins move."""
        if getattr(request, COMMITTED, False):
            return
        holder = holder_of(request)
        if holder is None or capture.active() is not None:
            super().mark_as_revoked(task_id, reason, request, store_result, state)
            return
        binding = find_binding(self.app)
        if binding is None:
            return
        store = binding.store

        def conclude() -> None:
            with unless_stale():
                with capture.capturing() as caught:
                    super(Backend, self).mark_as_revoked(task_id, reason, request, store_result, state)
                commit_revoked(store, holder, caught, request, reason)

        afterwords.say(conclude)

    def add_to_chord(self, group_id: str, result: Any) -> None:
        """Refuse: a join knows all its members when it opens."""
        raise UsageError(
            f"Task.add_to_chord: chord {group_id} cannot grow while it runs. Let the task return what is to be added, "
            "or replace it by a group (self.replace)."
        )

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Do nothing: the join knows its size from its making."""

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Open the chord's join, before any part of it can return."""
        binding = find_binding(self.app)
        if binding is None:
            super().apply_chord(header_result_args, body, **kwargs)
            return
        group_id, results = header_result_args
        header = GroupResult(group_id, list(results), app=self.app)
        members = list(leaves(header))
        offer = body_offer(self.app, body, group_id, parent_id=members[-1].id if members else None)
        # The join has a tree of its own under the group's id, which every part knows.
        join = Join(root=group_id, id=group_id, size=len(members), body=offer, members=members_of(header))
        caught = capture.active()
        if caught is not None:
            caught.joins.append(join)
        else:
            binding.store.offer([], [join])

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Let the part arrive at its join."""
        binding = find_binding(self.app)
        if binding is None:
            super().on_chord_part_return(request, state, result, **kwargs)
            return
        if not request.group or not request.id:
            return
        arrival = Arrival(
            root=request.group, id=request.group, index=f"t:{request.id}", succeeded=state == states.SUCCESS
        )
        caught = capture.active()
        if caught is not None:
            caught.arrivals.append(arrival)
        else:
            binding.store.arrive([arrival])


class SentinelResults(Backend, SentinelBackend):
    """The same behind Sentinels, which tell where the master is."""


@contextmanager
def unless_stale() -> Iterator[None]:
    """Swallow a lost ownership: the main process speaks of an attempt that another owns now, or that has committed."""
    try:
        yield
    except StaleHolder as stale:
        logger.info("late_write_refused: %s", stale)
