"""How often a step was tried, and how it is tried again: at once in the same attempt, or as its next generation."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from celery.exceptions import Retry

from agentq.core.codec import dumps, to_jsonable
from agentq.core.errors import AgentqError, ResultRefused, StaleHolder
from agentq.engine import capture, realloop
from agentq.engine.capture import Capture
from agentq.engine.ending import CAUGHT, Again, Ending
from agentq.engine.messages import HEADER, HOLDER_HEADER
from agentq.engine.outcome import keep_trying, line_of

EARLIER: Final = 10
"""So many errors of earlier tries travel with a step."""

STAY_SHARE: Final = 0.2
"""A step whose time limit is used up to this share by the tries before is tried again later: its limit counts anew."""

LONGEST_CHANGE: Final = 500
"""Characters of changed arguments in the history."""

_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Trying(Ending):
    """An attempt's tries.

    Attributes:
        returned: what the function returned last, as it is.
        began: when the attempt did, by the process's clock that does not jump.
        stop: ends its coroutine from another thread.
        arguments: by place and by name, a step's typed, an agent's as they came in the message.
    """

    returned: Any = None
    began: float
    stop: realloop.Stop
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    _tries: int | None = None

    @property
    def earlier(self) -> list[str]:
        """The errors of the tries before, a line each, the oldest first."""
        found: list[str] = self.ours.get("er", [])
        return found

    @property
    def soft_limit(self) -> timedelta | None:
        """After which time the attempt is to stop: the message's limit, else the task's."""
        limits = self.request.timelimit
        seconds = limits[1] if limits and limits[1] else self.task.soft_time_limit
        return timedelta(seconds=float(seconds)) if seconds else None

    def tries(self) -> int:
        """Return the number of this try, from 1.

        What was tried before a crash counts; the crash itself is no try of the function's.
        """
        if self._tries is None:
            self._tries = self.number
            # A try in place may have ended in a guard's line, from which the step came back with its first message.
            if self.task.agentq.is_guarded or (getattr(self.request, HOLDER_HEADER, None) or {}).get("suspect"):
                noted = keep_trying(lambda: self.store.tries(self.holder.root, self.holder.id))
                self._tries = self.number = max(self.number, noted)
        return self._tries

    def seconds_since_first_try(self) -> float:
        """Return how long ago the first try began, by the clocks of the workers that tried."""
        return max(0.0, time.time() - self._first_try())

    def _first_try(self) -> float:
        first: float = self.ours.setdefault("ft", time.time() - (time.monotonic() - self.began))
        return first

    def named_arguments(self) -> dict[str, Any]:
        """Return the arguments by name, defaults included; those of ``*args`` and ``**kwargs`` are left out."""
        bound = self._bound()
        kinds = {name: each.kind for name, each in bound.signature.parameters.items()}
        return {name: value for name, value in bound.arguments.items() if kinds[name] not in _VARIADIC}

    def _bound(self) -> inspect.BoundArguments:
        args, kwargs = self.arguments
        bound = inspect.signature(self.task.run).bind(*args, **kwargs)
        bound.apply_defaults()
        return bound

    def may_stay(self, pause: timedelta) -> bool:
        """Tell whether there is time for another try in this attempt."""
        limit = self.soft_limit
        used = time.monotonic() - self.began + pause.total_seconds()
        return limit is None or used <= limit.total_seconds() * STAY_SHARE

    def stay(self, error: BaseException, pause: timedelta, *, number: int) -> None:
        """Return when the function is to be called again, after the pause, with the same arguments.

        Raises StaleHolder when another attempt has the step.
        """
        line = line_of(error)
        if not keep_trying(lambda: self.store.retry(self.holder, number=number, error=line)):
            raise StaleHolder(
                step=self.holder.id,
                run_id=self.holder.root,
                holder="",
                take=0,
                mine=self.holder.worker,
                my_take=self.holder.take,
            )
        self.claim.fail_in_place()
        self._remember(line)
        self.onward = Capture()
        self.returned = None
        self._tries = self.number = number
        if pause > timedelta(0):
            realloop.run(asyncio.sleep(pause.total_seconds()), None, self.stop)

    def _remember(self, line: str) -> None:
        self._first_try()
        self.ours["er"] = [*self.earlier, f"attempt {self.tries()}: {line}"][-EARLIER:]

    def _again(self, again: Again) -> None:
        """Commit the step's next generation, due after the delay; raises Celery's Retry for its events."""
        if again.counts:
            self._remember(line_of(again.error))
        made = int(again.counts)
        args, kwargs = self._changed(again.changed)
        with self.whole_request(), capture.capturing() as caught:
            signature = self.task.signature_from_request(
                self.request,
                args,
                kwargs,
                countdown=max(again.delay.total_seconds(), 0.0),
                retries=self.request.retries + made,
                headers={HEADER: {**self.ours, "n": self.tries() + made}},
            )
            signature.apply_async()
        setattr(self.request, CAUGHT, caught)
        changed, idle = _told(again.changed), not again.counts
        self._onward(mode="again", chain=None, callbacks=None, error=again.error, changed=changed, idle=idle)
        raise Retry(exc=again.error, when=again.delay.total_seconds()) from again.error

    def _changed(self, changed: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments as the message has them, the changed ones as the message would have them."""
        args, kwargs = list(self.request.args), dict(self.request.kwargs)
        if not changed:
            return args, kwargs
        bound = self._bound()
        bound.arguments.update(changed)
        new_args, new_kwargs = self.task.schema.encode(bound.args, bound.kwargs)
        for place, name in enumerate(name for name in bound.signature.parameters if name not in bound.kwargs):
            if name in changed and place < len(new_args):
                if place < len(args):
                    args[place] = new_args[place]
                else:
                    kwargs[name] = new_args[place]
        return args, kwargs | {name: value for name, value in new_kwargs.items() if name in changed}


def inspect_result(step: Any, value: Any) -> None:
    """Return if the step's check lets the result pass; raises ResultRefused, or what is no ``Exception``."""
    try:
        verdict = step.agentq.check(value)
    except AgentqError:
        raise
    except Exception as error:
        reason = f"its check= raised {type(error).__name__}: {error}"
        raise ResultRefused(step=step.name, value=value, reason=reason) from error
    if verdict is False:
        raise ResultRefused(step=step.name, value=value, reason="its check= says no")


def state_of(
    function: Any, call: tuple[tuple[Any, ...], dict[str, Any]], number: int, outcome: Any, *, seconds: float
) -> Any:
    """Return the state of the attempts as tenacity's strategies read it.

    ``outcome`` is the last try's error, or its result; ``seconds`` have passed since the first try began.
    """
    import tenacity

    state = tenacity.RetryCallState(retry_object=None, fn=function, args=call[0], kwargs=call[1])  # type: ignore[arg-type]
    state.attempt_number = number
    if isinstance(outcome, BaseException):
        state.set_exception((type(outcome), outcome, outcome.__traceback__))
    else:
        state.set_result(outcome)
    assert state.outcome_timestamp is not None
    state.start_time = state.outcome_timestamp - seconds
    return state


def _told(changed: Mapping[str, Any]) -> str:
    """Return changed arguments as the history has them; empty for none."""
    if not changed:
        return ""
    parts = []
    for name, value in changed.items():
        try:
            said = dumps(to_jsonable(value))
        except (TypeError, ValueError):
            said = repr(value)
        parts.append(f"{name}={said}")
    return ", ".join(parts)[:LONGEST_CHANGE]
