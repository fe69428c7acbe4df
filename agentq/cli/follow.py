"""Following a run from a terminal: live where a person looks, lines where nobody does.

Owns the rhythm of asking. The picture is `agentq.console.live`'s.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.live import Live

from agentq.cli.answers import person, read_answer
from agentq.cli.output import say
from agentq.console.live import LiveView, RunMoment, count_by_name
from agentq.console.tables import answers_words, emitted_words, held_up_words
from agentq.console.words import duration, one_line, short_id, short_name
from agentq.core.errors import StoreUnavailable
from agentq.core.models import ENDED

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.core.models import AskSummary

EMITTED = "emit"
"""The kind of an event that an agent or a step made by `emit`."""
HELD_UP = ("condemned", "unserved", "unschedulable", "stopped", "undo-failed")
"""Kinds of events by which a run waits for somebody to do something."""
POLL_SECONDS = 0.1
COST_FACTOR = 8
"""A look at a large run costs the server time; at most a ninth of the time goes into looking."""
AWAY_SECONDS = 30.0
"""A server that is away for longer is given up."""
LINE_SECONDS = 2.0
"""At least so long between two lines about the same steps where no live view is."""


class Follower:
    """Watches one run until it ends, or until `deadline`."""

    def __init__(
        self,
        app: AgentQ,
        handle: Any,
        *,
        agent: str,
        console: Console | None,
        timeout: timedelta | None = None,
        tend: Callable[[], list[str]] | None = None,
        patience: float = AWAY_SECONDS,
    ) -> None:
        """`console` is where progress goes, nowhere when `None`; `tend`, called at each look, gives notes.

        A server that is away for more than `patience` seconds is given up.
        """
        self._app = app
        self._handle = handle
        self._agent = agent
        self._console = console
        self._tend = tend
        self._patience = patience
        self._began = datetime.now(UTC)
        self._deadline = None if timeout is None else time.monotonic() + timeout.total_seconds()
        self._notes: list[str] = []
        self._seen = 0
        self._told: dict[str, tuple[str, float]] = {}
        self._asked: set[str] = set()

    def follow(self) -> str:
        """The run's last status; one that is not among `ENDED` means that the time is over."""
        if self._console is None:
            return self._last(self._moments())
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            return self._tell_lines(self._console)
        return self._show_live(self._console)

    def _last(self, moments: Iterator[RunMoment]) -> str:
        status = "queued"
        for moment in moments:
            status = moment.status
        return status

    def _moments(self) -> Iterator[RunMoment]:
        """The run at one moment after the other; the last one is the run's end, or the time's."""
        while True:
            asked_at = time.monotonic()
            moment = self._patient_look()
            # Taken before the moment is shown: a person who is asked something may take minutes.
            cost = time.monotonic() - asked_at
            yield moment
            if moment.status in ENDED:
                return
            now = time.monotonic()
            if self._deadline is not None and now >= self._deadline:
                return
            pause = max(POLL_SECONDS, COST_FACTOR * cost if self._console is not None else 0.0)
            if self._deadline is not None:
                pause = min(pause, max(0.0, self._deadline - now))
            time.sleep(min(pause, 5.0))

    def _patient_look(self) -> RunMoment:
        """A look; a server that is away is waited for, since the run goes on when it is back."""
        gone_at: float | None = None
        while True:
            try:
                return self._look()
            except StoreUnavailable as away:
                gone_at = time.monotonic() if gone_at is None else gone_at
                if time.monotonic() - gone_at >= self._patience:
                    raise
                self._revive(away)
                time.sleep(POLL_SECONDS)

    def _revive(self, away: StoreUnavailable) -> None:
        try:
            done = self._app.revive_server()
        except StoreUnavailable:
            # Not ours to start, or not yet to be started.
            done = None
        words = done or f"{away} Waiting for it."
        if words not in self._notes:
            self._notes.append(words)

    def _look(self) -> RunMoment:
        # The status first: steps read after it are at least as new, so a finished run is shown whole.
        status = str(self._handle.status())
        if self._tend is not None:
            self._notes.extend(self._tend())
        if self._console is not None:
            self._notes.extend(self._emitted())
        # Only a parked run can wait for a person; the list of asks is everybody's and may be long.
        waits = status == "parked" and self._console is not None
        return RunMoment(
            run_id=self._handle.id,
            agent=self._agent,
            status=status,
            began=self._began,
            now=datetime.now(UTC),
            steps=self._handle.steps() if self._console is not None else (),
            asks=self._app.asks.list(run_id=self._handle.id) if waits else (),
            notes=tuple(self._notes[-5:]),
        )

    def _emitted(self) -> list[str]:
        """What the run and its steps have emitted since the last look, in words."""
        found = []
        for event in self._app.store.events(self._handle.root, after=self._seen):
            self._seen = event.offset
            if event.kind == EMITTED:
                found.append(emitted_words(event))
            elif event.kind in HELD_UP:
                found.append(held_up_words(event))
        return found

    def _show_live(self, console: Console) -> str:
        status = "queued"
        moments = self._moments()
        while True:
            first = next(moments, None)
            if first is None:
                return status
            view = LiveView(first)
            ask: AskSummary | None = None
            with Live(view, console=console, transient=True, refresh_per_second=8) as live:
                moment: RunMoment | None = first
                while moment is not None:
                    view.moment, status = moment, moment.status
                    live.refresh()
                    ask = self._to_put(moment)
                    if ask is not None:
                        break
                    moment = next(moments, None)
            if ask is None:
                return status
            self._put(ask)

    def _to_put(self, moment: RunMoment) -> AskSummary | None:
        if not sys.stdin.isatty() or moment.status in ENDED:
            return None
        return next((ask for ask in moment.asks if ask.ask_id not in self._asked), None)

    def _put(self, ask: AskSummary) -> None:
        """The person at this terminal is asked; what they say is the answer unless somebody was faster."""
        self._asked.add(ask.ask_id)
        choices = answers_words(ask)
        question = one_line(f"{self._agent} asks: {ask.question}") + (f" [{choices}]" if choices else "")
        while True:
            words = click.prompt(question, prompt_suffix=" ", err=True)
            with contextlib.suppress(ValueError):
                value = read_answer(ask, words)
                break
            say("That is not an answer to this question.")
        self._app.asks.answer(ask.ask_id, value, by=person())

    def _tell_lines(self, console: Console) -> str:
        status, told_notes = "", 0
        for moment in self._moments():
            elapsed = f"{duration(moment.now - moment.began):>8}"
            if moment.status != status and moment.status not in ENDED:
                self._tell_status(console, moment, elapsed)
            for note in self._notes[told_notes:]:
                _line(console, f"{elapsed}  {one_line(note)}")
            told_notes = len(self._notes)
            for ask in moment.asks:
                if ask.ask_id not in self._asked:
                    self._asked.add(ask.ask_id)
                    _line(
                        console,
                        f"{elapsed}  asks: {one_line(ask.question)}  (agentq asks answer {ask.ask_id} VALUE)",
                    )
            self._tell_counts(console, moment, elapsed)
            if moment.status != status and moment.status in ENDED:
                self._tell_status(console, moment, elapsed)
            status = moment.status
        return status

    def _tell_status(self, console: Console, moment: RunMoment, elapsed: str) -> None:
        _line(console, f"{elapsed}  {one_line(moment.agent)} {short_id(moment.run_id)} {moment.status}")

    def _tell_counts(self, console: Console, moment: RunMoment, elapsed: str) -> None:
        now = time.monotonic()
        for count in count_by_name(moment.steps):
            words, at = self._told.get(count.name, ("", 0.0))
            finished = count.done == count.total
            if words == count.words() or (not finished and now - at < LINE_SECONDS):
                continue
            self._told[count.name] = (count.words(), now)
            on = sorted({step.worker for step in moment.steps if step.name == count.name and step.worker})
            where = f" on {', '.join(one_line(worker) for worker in on[:4])}" if on else ""
            _line(console, f"{elapsed}  {short_name(count.name)} {count.words()}{where}")


def _line(console: Console, words: str) -> None:
    console.print(words, markup=False, highlight=False, soft_wrap=True)
