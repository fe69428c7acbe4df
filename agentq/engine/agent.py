"""Agents as Celery tasks: steps whose attempts are turns, and which are started for a handle of their run."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, ParamSpec, TypeVar

from celery.exceptions import OperationalError

from agentq.core.codec import canonical, short_hash
from agentq.core.errors import RunCancelled, StoreUnavailable, UsageError
from agentq.engine import capture, single
from agentq.engine.binding import binding_of
from agentq.engine.budgets import run_limits
from agentq.engine.handle import Handle
from agentq.engine.options import CallOptions
from agentq.engine.room import patiently
from agentq.engine.task import Step
from agentq.store.wire import redacted

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class Agent(Step[P, R]):
    """An agent: a Celery task whose turns replay a journal. ``start`` gives a handle of the run."""

    abstract = True
    is_agent: ClassVar[bool] = True
    kind: ClassVar[str] = "agent"
    ignore_result = False
    # A cancel is no fault: Celery logs what stands here in one line, without a traceback.
    throws = (RunCancelled,)

    def start(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Start a run and return its handle; from here on it is in custody.

        With a key that stands, the handle is the earlier run's. Raises InvalidArguments before anything is sent,
        KeyReused when the key's run had other arguments.
        """
        self._refuse_eager()
        encoded_args, encoded_kwargs = self.schema.encode(list(args), dict(kwargs))
        binding = binding_of(self.app)
        alike = single.alike(self, binding, self.call, {}, args, kwargs) if self.call.key is None else None
        if alike is not None:
            offer = alike.offer(encoded_args, encoded_kwargs)
        else:
            try:
                with capture.capturing() as caught:
                    self.apply_async(encoded_args, encoded_kwargs)
            except OperationalError as error:
                raise StoreUnavailable(url=redacted(binding.store.url), reason=str(error)) from error
            (offer,) = caught.offers
        run_id = patiently(self.app, self.call, lambda: binding.store.start(offer, key=self.call.key))
        # With a key it may be an earlier run, of another tree.
        root = offer.root if run_id == offer.id else None
        return Handle(binding.store, run_id, schema=self.schema, agent=self.name, root=root)

    async def astart(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Start a run without blocking the event loop; as ``start`` otherwise."""
        import asyncio

        return await asyncio.to_thread(self.start, *args, **kwargs)

    def start_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Start a run when Django's current transaction commits; as a step's otherwise."""
        from django.db import transaction

        self.schema.encode(list(args), dict(kwargs))
        transaction.on_commit(lambda: self.start(*args, **kwargs))

    def _run_eagerly(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        self._refuse_eager(always=True)

    def _refuse_eager(self, *, always: bool = False) -> None:
        if always or self.app.conf.task_always_eager:
            raise UsageError(
                f"Agent {self.name!r} cannot run eagerly: it waits and replays. In tests use agentq.testing: "
                f"`await run_here({self.name.rsplit('.', 1)[-1]}, …)`; steps may run with task_always_eager."
            )

    def header_of(self, call: CallOptions, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return our header's fields for a start: also version, budget and key."""
        ours = super().header_of(call, args, kwargs)
        ours["k"] = "a"
        if self.agentq.version is not None:
            ours["v"] = self.agentq.version
        limits = run_limits(self.agentq.budgets)
        if limits:
            ours["bu"] = limits
        watch = self.agentq.zombie_rules(binding_of(self.app).zombies).watch()
        if watch:
            ours["zw"] = watch
        if call.key is not None:
            # A sub-agent's may be its run's: the same key of two tenants is two runs.
            tenant = (ours.get("cd") or {}).get("tenant") or ""
            ours["sd"] = hashlib.sha256("\x00".join([self.name, tenant, call.key]).encode()).hexdigest()
            ours["ad"] = short_hash(canonical([args, kwargs]))
            ours.setdefault("cd", {})["key"] = call.key
        return ours
