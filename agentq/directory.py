"""``app.agents``, ``app.runs``, ``app.asks`` and so on: how applications and consoles find what runs.

An application that holds none of an agent's code finds it by the name that a worker has announced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from agentq.core.codec import dumps, loads
from agentq.core.error_base import listed, near
from agentq.core.errors import LetterNotFound, RunNotFound, UnknownAgent, UsageError
from agentq.core.models import AskSummary, CacheSummary, DeadLetter, GateSummary, RunSummary
from agentq.core.schema import check_value
from agentq.engine.agent import Agent
from agentq.engine.assembly import agents_of
from agentq.engine.handle import Handle
from agentq.engine.letters import end_condemned
from agentq.engine.remote import remote_agent
from agentq.engine.routing import home_of
from agentq.store.letters import Claimed

if TYPE_CHECKING:
    from agentq.app import Toolkit


class Agents(Mapping[str, Agent[..., Any]]):
    """Agents by name: this app's own, and those that workers have announced."""

    def __init__(self, toolkit: Toolkit) -> None:
        self._toolkit = toolkit

    def __getitem__(self, name: str) -> Agent[..., Any]:
        """Return the agent; raises UnknownAgent when this app has none and no worker has announced one."""
        own = agents_of(self._toolkit.celery)
        if name in own:
            return own[name]
        announced = self._toolkit.store.announced()
        if name in announced:
            return remote_agent(self._toolkit.celery, name, announced[name])
        raise UnknownAgent(name=name, known={*own, *announced})

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*agents_of(self._toolkit.celery), *self._toolkit.store.announced()}))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return any(name == known for known in self)

    def pool_of(self, name: str) -> str:
        """Return the queue that the agent's runs go to."""
        agent = self[name]
        return home_of(agent)


class Runs:
    """Runs by id, and listings of them."""

    def __init__(self, toolkit: Toolkit) -> None:
        self._toolkit = toolkit

    def get(self, run_id: str) -> Handle[Any]:
        """Return the handle of a run; raises RunNotFound when it is not known (any more)."""
        store = self._toolkit.store
        root = store.root_of(run_id)
        if root is None:
            raise RunNotFound(run_id=run_id)
        name = store.record(root, run_id).get("nm", "")
        own = agents_of(self._toolkit.celery).get(name)
        schema = own.schema if own is not None else None
        return Handle(store, run_id, schema=schema, agent=name, root=root)

    def list(
        self,
        *,
        agent: str | None = None,
        status: str | None = None,
        limit: int = 50,
        roots_only: bool = False,
    ) -> list[RunSummary]:
        """Return runs, newest first; ``roots_only`` leaves out sub-agents."""
        return self._toolkit.store.runs(agent=agent, status=status, limit=limit, roots_only=roots_only)


class Asks:
    """The questions that runs have put to people."""

    def __init__(self, toolkit: Toolkit) -> None:
        self._toolkit = toolkit

    def list(self, *, run_id: str | None = None) -> list[AskSummary]:
        """Return the open ones, oldest first."""
        return self._toolkit.store.asks(run_id=run_id)

    def answer(self, ask_id: str, value: Any, *, by: str = "") -> Any:
        """Decide an ask and return the answer that stands: an earlier one, if somebody was faster.

        Raises InvalidArguments when the answer is not of the ask's type, UsageError when no such ask is open.
        """
        found = self._toolkit.store.ask(ask_id)
        if found is None:
            raise UsageError(
                f"No ask {ask_id!r} is open: it was answered, or its run went on. "
                "`agentq asks list` shows the open ones."
            )
        root, ask = found
        check_value(ask.answer_schema, value, name=ask.question, step="ask")
        reply, standing = self._toolkit.store.answer(root, ask_id, dumps(value), by=by)
        if reply in ("unknown", "ended"):
            raise UsageError(f"Ask {ask_id!r} is closed: its run went on without an answer.")
        return loads(standing) if standing is not None else value


class DeadLetters:
    """Messages that nobody takes until a person decides: steps that kill their workers, what cannot be read."""

    def __init__(self, toolkit: Toolkit) -> None:
        self._toolkit = toolkit

    def list(self, *, limit: int | None = None) -> list[DeadLetter]:
        """Return them, newest first; None for all."""
        return self._toolkit.store.letters(limit=limit)

    def get(self, letter_id: str) -> tuple[DeadLetter, bytes]:
        """Return a dead letter and its whole message; raises LetterNotFound."""
        found = self._toolkit.store.letter(letter_id)
        if found is None:
            raise LetterNotFound(letter_id=letter_id)
        return found

    def replay(self, letter_id: str) -> None:
        """Have it delivered again, with its deaths forgotten; raises LetterNotFound, also for one that was replayed."""
        _check(self._toolkit.store.replay(letter_id), letter_id)

    def drop(self, letter_id: str) -> None:
        """Give it up: a step ends as failed, so that its run goes on without it; a plain message is deleted.

        Raises LetterNotFound, also for one that was dropped before.
        """
        letter, _ = self.get(letter_id)
        reply = self._toolkit.store.drop_letter(letter_id, label="agentq dead drop")
        if isinstance(reply, Claimed):
            reason = f"{letter.words}; its dead letter was dropped"
            end_condemned(self._toolkit.celery, self._toolkit.store, reply, reason=reason)
        else:
            _check(reply, letter_id)


class Breakers:
    """The breakers that steps have used of late, shared by all workers."""

    def __init__(self, toolkit: Toolkit) -> None:
        self._toolkit = toolkit

    def list(self) -> list[GateSummary]:
        """Return them by name."""
        return self._toolkit.store.gates("breaker")

    def trip(self, name: str, *, span: timedelta | None = None) -> None:
        """Open one, by default for its own time; raises UsageError when no step has used one of that name."""
        span_ms = None if span is None else max(int(span.total_seconds() * 1000), 1)
        self._check(self._toolkit.store.trip_breaker(name, span_ms=span_ms), name)

    def reset(self, name: str) -> None:
        """Close one and forget its failures; what waits goes on. Raises as ``trip`` does."""
        self._check(self._toolkit.store.reset_breaker(name), name)

    def _check(self, known: bool, name: str) -> None:
        if not known:
            names = [each.name for each in self.list()]
            raise UsageError(
                f"No step has used a breaker {name!r} of late.{near(name, names)} "
                f"Known: {listed(names) if names else 'none'}."
            )


class Limits:
    """The rates and limits that steps have used of late, shared by all workers."""

    def __init__(self, toolkit: Toolkit) -> None:
        self._toolkit = toolkit

    def list(self) -> list[GateSummary]:
        """Return them by name."""
        return self._toolkit.store.gates("limit")


class Caches:
    """The steps with ``cache=`` that were called so far."""

    def __init__(self, toolkit: Toolkit) -> None:
        self._toolkit = toolkit

    def list(self) -> list[CacheSummary]:
        """Return them by name: how often an answer was there, and what that has saved."""
        return self._toolkit.store.caches()

    def drop(self, step: str) -> None:
        """Have all answers of a step count for nothing any more; raises UsageError when none was ever kept."""
        if not self._toolkit.store.drop_cache(step):
            names = [each.step for each in self.list()]
            raise UsageError(
                f"Nothing of a step {step!r} is cached.{near(step, names)} Known: {listed(names) if names else 'none'}."
            )


def _check(reply: str, letter_id: str) -> None:
    if reply == "busy":
        raise UsageError(f"Dead letter {letter_id} is being dropped by somebody else at this moment.")
    if reply == "unknown":
        raise LetterNotFound(letter_id=letter_id)
