"""Why a worker cannot run a message: it has no such task, or serves another version of the agent.

Must not know how a message is handed back; it judges a payload by what this worker and the living ones have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal

from agentq.core.errors import Unavailable
from agentq.core.models import Unserved
from agentq.engine.messages import HEADER
from agentq.store import Store

OFFER_AGAIN_MS = 5_000
"""How long a task waits again that this worker does not know: short enough that a worker that does gets it soon."""

HAND_OVER_MS = 500
"""The same where a living worker serves the run's version: it is to get it at once, as soon as it has a slot."""

LONGEST_MS = 60_000
"""Between two offers of a run whose version nobody serves: thousands of them may wait for months."""

LOOK_AGAIN_S = 5.0
"""How long it is believed which versions the living workers serve."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """What a message lacks here, in words for people, and the shortest and longest pause until its next offer.

    ``nowhere``: no living worker serves its version.
    """

    lacks: Literal["task", "version"]
    words: str
    pause_ms: int = OFFER_AGAIN_MS
    longest_ms: int = OFFER_AGAIN_MS
    nowhere: bool = False


def fits(unserved: Unserved, task: Any) -> bool:
    """Tell whether a worker that has just come, with this task under the name, may run what was unserved so far."""
    if task is None or unserved.lacks == "worker":
        return False
    options = getattr(task, HEADER, None)
    if unserved.lacks == "task" or options is None:
        return True
    return options.version in (None, unserved.version) or unserved.version in options.continues


def no_misfit(_payload: dict[str, Any], _queue: str) -> Misfit | None:
    """Judge nothing: for a consumer that is no worker and runs no tasks."""
    return None


class Misfits:
    """The judgement of one worker.

    Args:
        serves: whether the worker has a task of that name.
        agent: gives its own agent of a name.
        store: where the living workers say which versions they serve.
    """

    def __init__(self, *, serves: Callable[[str], bool], agent: Callable[[str], Any], store: Store) -> None:
        self._serves = serves
        self._agent = agent
        self._store = store
        self._living: set[tuple[str, str, str | None]] = set()
        self._looked_at = float("-inf")

    def __call__(self, payload: dict[str, Any], queue: str) -> Misfit | None:
        """Return why the worker cannot run the message of a queue; None when it can."""
        headers = payload["headers"]
        name = headers.get("task")
        if name is None:
            return None
        if not self._serves(name):
            return Misfit("task", f"no worker that took it knows the task {name!r}")
        ours = headers.get(HEADER) or {}
        return self._misfit_of_version(queue, name, ours.get("v")) if ours.get("k") == "a" else None

    def _misfit_of_version(self, queue: str, name: str, version: str | None) -> Misfit | None:
        options = getattr(self._agent(name), HEADER, None)
        if options is None or version is None or options.version in (None, version):
            return None
        if (queue, name, version) in self._served():
            return Misfit(
                "version", f"version {version!r} of {name!r} is served elsewhere", HAND_OVER_MS, OFFER_AGAIN_MS
            )
        if version in options.continues:
            return None
        words = f"no worker serves version {version!r} of {name!r}; here it is version {options.version!r}"
        return Misfit("version", words, OFFER_AGAIN_MS, LONGEST_MS, nowhere=True)

    def _served(self) -> set[tuple[str, str, str | None]]:
        if monotonic() - self._looked_at >= LOOK_AGAIN_S:
            try:
                self._living = self._store.served_versions()
            except Unavailable:
                # The message goes back by the same server, and comes again when it is there.
                return self._living
            self._looked_at = monotonic()
        return self._living
