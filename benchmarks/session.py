"""One series of measurements: who runs when, for how long, and what was read so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from celery import exceptions

from benchmarks.contenders import Contender
from benchmarks.measures import Above, Measure, Reading

Readings = dict[str, dict[str, list[Reading]]]
"""By measure and contender, in the order of the rounds."""


def contenders_at(place: str, folder: Path, *, scale: float = 1.0) -> dict[str, Contender]:
    """All that can take part, each in a database of its own; ``place``: the server's address."""
    every = [
        Contender("stock", "stock", place, 0, folder),
        Contender("tuned", "tuned", place, 1, folder, column="stock tuned"),
        Contender("agentq", "durable", place, 2, folder),
        Contender("agentq threads", "durable", place, 3, folder, pool="threads"),
        Contender("floor", "floor", place, 4, folder),
        Contender("stock wide", "stock", place, 5, folder, "threads", 1_000, column="stock"),
        Contender("agentq wide", "durable", place, 6, folder, "threads", 1_000, column="agentq threads"),
        Contender("floor wide", "floor", place, 7, folder, concurrency=1_000, column="floor"),
    ]
    for contender in every:
        contender.scale = scale
    return {contender.name: contender for contender in every}


class Session:
    """The readings of a series, round by round: a whole table stands after the first round already.

    Args:
        place: the server's address, in redis-py's spelling.
        folder: for the logs of the workers.
        scale: by which the sizes are multiplied.
        seconds: no reading begins later than that; None: no limit.
        say: told before each reading.
        done: told after each reading.
        clean: called after each reading.
    """

    def __init__(
        self,
        place: str,
        folder: Path,
        *,
        scale: float,
        seconds: float | None,
        say: Callable[[str], None],
        done: Callable[[Readings], None],
        clean: Callable[[Contender], None] = Contender.clean,
    ) -> None:
        self.readings: Readings = {}
        self._contenders = contenders_at(place, folder, scale=scale)
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._say = say
        self._done = done
        self._clean = clean
        self._serving: dict[str, tuple[int, ExitStack]] = {}
        self._too_long: set[tuple[str, str]] = set()

    def run(self, measures: Sequence[Measure], rounds: int) -> None:
        """Take the readings; ends early when the time is over."""
        # What must be alone comes before the workers that then stay.
        for measure in measures:
            if measure.alone:
                for number in range(min(rounds, measure.most_rounds)):
                    self._round(measure, number, None)
        with ExitStack() as workers:
            for number in range(rounds):
                for measure in measures:
                    if not measure.alone and number < measure.most_rounds:
                        self._round(measure, number, workers)

    def _round(self, measure: Measure, number: int, workers: ExitStack | None) -> None:
        for contender in self._of(measure):
            if self._deadline is not None and time.monotonic() > self._deadline:
                return
            if (measure.name, contender.name) in self._too_long:
                continue
            self._say(f"{measure.name}, round {number + 1}: {contender.name}")
            pid = self._worker_of(contender, workers) if workers is not None else 0
            reading = self._read(measure, contender, pid)
            self._clean(contender)
            if reading:
                taken = self.readings.setdefault(measure.name, {})
                taken.setdefault(contender.column, []).append(reading)
                self._done(self.readings)

    def _read(self, measure: Measure, contender: Contender, pid: int) -> Reading:
        """Return a reading; what of it took too long is a bound, or missing where no bound can be told."""
        contender.begin(measure.limit_s)
        reading: Reading = {}
        with suppress(TimeoutError, exceptions.TimeoutError):
            reading = measure.read(contender, pid)
        if not reading or any(isinstance(figure, Above) for figure in reading.values()):
            self._say(f"{contender.name} takes more than {measure.limit_s:.0f} s, and is not read again")
            self._too_long.add((measure.name, contender.name))
            # What it has not ended would disturb whoever is read next: its worker ends, and the next one finds nothing.
            if contender.name in self._serving:
                self._serving.pop(contender.name)[1].close()
        return reading

    def _of(self, measure: Measure) -> Iterator[Contender]:
        return (self._contenders[name] for name in measure.contenders)

    def _worker_of(self, contender: Contender, workers: ExitStack) -> int:
        """Return the process id of the contender's worker, which is warm and stays until the series ends."""
        if contender.name not in self._serving:
            own = workers.enter_context(ExitStack())
            self._serving[contender.name] = own.enter_context(contender.worker()), own
            if contender.column == contender.name or contender.name == "tuned":
                for _ in range(20):
                    contender.round_trip()
        return self._serving[contender.name][0]
