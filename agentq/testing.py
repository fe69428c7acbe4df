"""For tests of your own agents: runs in this process, and journals replayed against today's code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from agentq.core.errors import UsageError
from agentq.engine.agent import Agent
from agentq.runtime.effects import words_of
from agentq.runtime.export import read_journal, replay
from agentq.runtime.here import Here, HereRun, machine_for
from agentq.runtime.outcomes import Identity

R = TypeVar("R")

__all__ = ["Replayed", "check_replay", "run_here"]


async def run_here(
    agent: Agent[..., R],
    *args: Any,
    answers: Mapping[str, Any] | None = None,
    signals: Mapping[str, Sequence[Any]] | None = None,
    stand_ins: Mapping[Any, Callable[..., Any]] | None = None,
    journal: Path | str | None = None,
    **kwargs: Any,
) -> R:
    """The agent's result, from a run in this process without a server; raises what the agent raised.

    Steps and child agents run in place, with their retries and fallbacks; sleeps and time-outs pass at once.

    Args:
        agent: the agent.
        args: its arguments, without the run.
        answers: by question: the answer, or a function that is called with the question. A question without one
            takes its time-out and default, and is an error where it has none.
        signals: by name: the payloads that come, one after the other, once the agent waits for them.
        stand_ins: by step or agent, or by its name: a function that is called in its place.
        journal: a file that the run's journal is written to, for `check_replay`.
        kwargs: the agent's arguments by name.
    """
    loop = asyncio.get_running_loop()
    here = Here(
        answers=answers if answers is not None else {},
        stand_ins={_name(each): function for each, function in (stand_ins or {}).items()},
        # On the test's own loop, so that steps may use what the test has opened there.
        finish=lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(),
    )
    encoded = agent.schema.encode(args, kwargs)
    run = HereRun(here, agent, encoded)
    outcome = await asyncio.to_thread(run.run, signals if signals is not None else {})
    if journal is not None:
        await asyncio.to_thread(Path(journal).write_text, run.journal(), encoding="utf-8")
    if outcome.error is not None:
        raise outcome.error
    return cast(R, agent.schema.decode_result(outcome.value))


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay found.

    Attributes:
        run_id: the run whose journal it was.
        inputs: how many inputs the agent saw.
        asked: how many recorded asks it made again.
        new: what it would ask for now, in words; empty when it has ended as it did.
        ended: whether it came to its end.
    """

    run_id: str
    inputs: int
    asked: int
    new: tuple[str, ...]
    ended: bool


def check_replay(agent: Agent[..., Any], journal_file: Path | str) -> Replayed:
    """The agent's code of today goes on with the run of the journal; raises ReplayMismatch when it would not.

    The file was written by `run_here(journal=…)`, or in the same format. Nothing is sent and no step runs. The rules
    are the worker's: with the version that wrote the journal the agent must ask for the same at the same
    places, with another one it may ask for more. Also raises JournalUnreadable for a file that is no journal.
    """
    found = read_journal(journal_file)
    header = found.header
    if header.agent != agent.name:
        raise UsageError(f"{journal_file} is a journal of agent {header.agent!r}, not of {agent.name!r}.")
    identity = Identity(
        run_id=header.run_id, agent=agent.name, version=agent.agentq.version, key=header.key, tenant=header.tenant
    )
    machine = machine_for(agent, (header.args, header.kwargs), identity)
    try:
        replay(machine, found.entries)
        asked = machine.asks.made
        new = [effect for effect in machine.asks.take() if not effect.cancelled]
        return Replayed(
            run_id=header.run_id,
            inputs=machine.seen,
            asked=asked - len(new),
            new=tuple(words_of(effect.ask) for effect in new),
            ended=machine.outcome is not None,
        )
    finally:
        machine.drop()


def _name(step: Any) -> str:
    return step if isinstance(step, str) else str(step.name)
