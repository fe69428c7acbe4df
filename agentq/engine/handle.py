"""A handle of a run: its state, its history, its result; signals and cancels it. Holds nothing but ids."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Sequence
from typing import Any, Generic, TypeVar, cast

from celery import states

from agentq.core.codec import dumps
from agentq.core.error_base import listed, near
from agentq.core.errors import (
    AgentqError,
    GetTimeout,
    RunCancelled,
    RunFailed,
    RunNotFound,
    StepFailed,
    UsageError,
    from_wire,
)
from agentq.core.guards import Budget
from agentq.core.models import RunStatus, RunSummary, Saved, StepSummary, Usage
from agentq.core.schema import CallSchema
from agentq.core.zombies import RULES
from agentq.engine.events import EventStream
from agentq.engine.fork import fork_run
from agentq.engine.history import saved_of, steps_of, usage_of
from agentq.store import Store
from agentq.store.logs import AppendReply

R = TypeVar("R", covariant=True)

_LOOK_S = 60.0
"""So often a handle that waits makes sure that its run is still known: a server may have lost its data."""


class Handle(Generic[R]):
    """One run of an agent.

    ``handle.get(timeout=…)`` in plain code, ``await handle`` in asyncio.
    """

    def __init__(
        self,
        store: Store,
        run_id: str,
        *,
        schema: CallSchema | None = None,
        agent: str = "",
        root: str | None = None,
    ) -> None:
        self.store = store
        self.id = run_id
        self.agent = agent
        self._schema = schema
        self._root = root

    def __repr__(self) -> str:
        return f"<Handle of run {self.id} of agent {self.agent!r}>"

    @property
    def root(self) -> str:
        """The root run's id: its own, but for a sub-agent's run. Raises RunNotFound."""
        if self._root is None:
            self._root = self.store.root_of(self.id)
            if self._root is None:
                raise RunNotFound(run_id=self.id)
        return self._root

    def summary(self) -> RunSummary:
        """Return what a listing says of the run; raises RunNotFound when it is not known (any more)."""
        found = self.store.run(self.id)
        if found is None:
            raise RunNotFound(run_id=self.id)
        return found

    def status(self) -> RunStatus:
        """Return the run's status; raises RunNotFound when it is not known (any more)."""
        return self.summary().status

    def get(self, timeout: float | None = None) -> R:
        """Block until the run has ended and return its result.

        Args:
            timeout: seconds; None waits for ever.

        Raises:
            RunFailed: the agent raised; the error names what.
            RunCancelled: the run was cancelled.
            RunNotFound: no such run is known; it does not wait for one.
            GetTimeout: the run goes on; a later ``get`` finds it.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        # Of many that were started at once most have ended when they are asked: then there is nothing to wait for.
        if self._root is not None and (meta := self.store.outcome(self.id)) is not None:
            return self._result(meta)
        while True:
            meta = self.store.past_outcome(self.root, self.id)
            left = _LOOK_S if deadline is None else min(deadline - time.monotonic(), _LOOK_S)
            meta = self.store.wait_outcome(self.id, max(left, 0.0)) if meta is None else meta
            if meta is not None:
                return self._result(meta)
            if deadline is not None and time.monotonic() >= deadline:
                raise GetTimeout(run_id=self.id, seconds=timeout or 0.0)

    async def aget(self, timeout: float | None = None) -> R:  # noqa: ASYNC109  # as `get` has it
        """Wait for the result without blocking the event loop; as ``get`` otherwise."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            meta = await asyncio.to_thread(lambda: self.store.past_outcome(self.root, self.id))
            left = _LOOK_S if deadline is None else min(deadline - time.monotonic(), _LOOK_S)
            meta = await self.store.await_outcome(self.id, max(left, 0.0)) if meta is None else meta
            if meta is not None:
                return await asyncio.to_thread(self._result, meta)
            if deadline is not None and time.monotonic() >= deadline:
                raise GetTimeout(run_id=self.id, seconds=timeout or 0.0)

    def __await__(self) -> Generator[Any, None, R]:
        return self.aget().__await__()

    def _result(self, meta: dict[str, Any]) -> R:
        if meta["status"] == states.SUCCESS:
            value = meta.get("result")
            return cast(R, self._schema.decode_result(value) if self._schema is not None else value)
        record = self.store.record(self.root, self.id)
        agent = self.agent or record.get("nm", "")
        error = failure_of(meta, record, agent, self.id)
        if meta["status"] == states.REVOKED:
            raise error if isinstance(error, RunCancelled) else RunCancelled(run_id=self.id)
        # What the agent itself raised is told as that; "step" would be the run's own id again.
        if isinstance(error, StepFailed) and error.step_id == self.id:
            raise RunFailed(run_id=self.id, agent=agent, error=f"{error.error_type}: {error.message}") from error
        raise RunFailed(run_id=self.id, agent=agent, error=error.to_wire()) from error

    def events(self, *, after: int = 0, follow: bool = True) -> EventStream:
        """Return the run's history behind offset ``after``; 0 is the beginning.

        Iterate it with ``for`` or ``async for``. With ``follow`` it goes on until the run has ended, also through a cut
        connection; without, it ends at the last line that is there. Resume with ``after=event.offset``. Raises
        RunNotFound.
        """
        return EventStream(self.store, self.root, self.id, after=after, follow=follow)

    def steps(self) -> list[StepSummary]:
        """Return the run's steps in the order in which they were asked for; members of a fan-out one by one."""
        return steps_of(self.store, self.root, self.id)

    def usage(self) -> Usage:
        """Return what the run and all below it have used so far."""
        return usage_of(self.store, self.root)

    def saved(self) -> Saved:
        """Return what kept answers (``cache=``) have saved the run and all below it so far."""
        return saved_of(self.store, self.root)

    def signal(self, name: str, payload: Any = None, *, id: str | None = None) -> bool:  # noqa: A002  # the word of the field
        """Send a signal; kept until the agent waits for it. False when this ``id`` was sent before.

        Raises RunNotFound, or UsageError when the run has ended.
        """
        reply = self._of_past(self.store.signal(self.root, self.id, name, dumps(payload), signal_id=id))
        if reply == "ended":
            raise UsageError(f"Run {self.id} has ended: it takes no signal {name!r}.")
        return reply == "new"

    async def asignal(self, name: str, payload: Any = None, *, id: str | None = None) -> bool:  # noqa: A002  # the word of the field
        """Send a signal without blocking the event loop; as ``signal`` otherwise."""
        return await asyncio.to_thread(lambda: self.signal(name, payload, id=id))

    def retry(self, *, budget: Budget | None = None, version: str | None = None) -> Handle[R]:
        """Start the run again from the step that it failed at, as a run of its own, and return that one's handle.

        What has succeeded before is not done again; what was undone is. A second call returns the same handle, and a
        start under this run's key returns it too. What was spent counts on; ``budget`` sets other limits, ``version``
        names the version of the agent that goes on. Raises UsageError when the run has succeeded or has not ended.
        """
        return self._forked(fork_run(self.store, self.root, self.id, step=None, budget=budget, version=version))

    def fork(self, step_id: str, *, budget: Budget | None = None, version: str | None = None) -> Handle[R]:
        """Start another run that has all of this one up to a step, does the step again and goes on; return its handle.

        The step is one of ``steps()``; of a fan-out, one member alone may be done again. This run stays as it is, and
        may be under way. Signals that were not consumed before the step are there too. Raises UsageError when there is
        no such step.
        """
        return self._forked(fork_run(self.store, self.root, self.id, step=step_id, budget=budget, version=version))

    def _forked(self, run_id: str) -> Handle[R]:
        return Handle(self.store, run_id, schema=self._schema, agent=self.agent, root=run_id)

    def cancel(self, why: str = "cancelled by its owner") -> bool:
        """Ask the run to stop: it sees CancelledError, its sub-agents too. False when it had ended or was asked before.

        Raises RunNotFound.
        """
        return self._of_past(self.store.cancel(self.root, self.id, why)) == "new"

    def stop(self, why: str = "stopped by its owner") -> bool:
        """Have the run and all below it stand still: what runs now ends, nothing else begins, until ``resume``.

        False when it stands still already. Raises RunNotFound, or UsageError when the run has ended.
        """
        return self._stood_still(self.store.stop(self.root, self.id, why, rule="person"), "stopped")

    def resume(self, *, allow: Sequence[str] = (), by: str = "") -> bool:
        """Have the run go on that a rule or a person has stopped; what it did before is no evidence any more.

        The rules in ``allow`` (such as ``repeats``) never stop this run again. False when it does not stand still: it
        goes on, or somebody was faster. Raises RunNotFound, and UsageError for a run that has ended or an unknown rule.
        """
        allow = [allow] if isinstance(allow, str) else list(allow)
        for name in allow:
            if name not in RULES:
                raise UsageError(f'There is no rule "{name}" to allow.{near(name, RULES)} The rules: {listed(RULES)}.')
        return self._stood_still(self.store.resume(self.root, self.id, allow=allow, by=by), "resumed")

    def _stood_still(self, reply: AppendReply, what: str) -> bool:
        if self._of_past(reply) == "ended":
            raise UsageError(f"Run {self.id} has ended ({self.status()}): it cannot be {what}.")
        return reply == "new"

    def _of_past(self, reply: AppendReply) -> AppendReply:
        """Return what came of an input: what the server does not know any more may have ended long ago."""
        if reply != "unknown":
            return reply
        if self.store.record(self.root, self.id).get("k") != "a":
            raise RunNotFound(run_id=self.id)
        return "ended"


def failure_of(meta: dict[str, Any], record: dict[str, str], step: str, step_id: str) -> AgentqError:
    """Return the error that a failed step's meta tells of."""
    result = meta.get("result")
    if isinstance(result, dict) and isinstance(result.get("agentq"), dict):
        return from_wire(result["agentq"])
    if isinstance(result, dict) and "exc_type" in result:
        message = result.get("exc_message")
        text = " ".join(str(part) for part in message) if isinstance(message, list) else str(message)
        return StepFailed(step=step, step_id=step_id, error_type=str(result["exc_type"]), message=text)
    return StepFailed(step=step, step_id=step_id, error_type="Error", message=record.get("e", str(result)))
