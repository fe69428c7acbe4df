"""Rates, means, bunches and lulls that follow what happens. It owns no clock: each reading brings its time."""

from collections import deque
from dataclasses import dataclass, field
from math import exp, inf
from statistics import median
from typing import Final


@dataclass(slots=True)
class Rate:
    """Events per second, averaged over about `constant_s` seconds; what lies further back counts ever less.

    A young one averages over its whole life, so that it does not begin with a climb from zero.
    """

    constant_s: float
    value: float = 0.0
    age_s: float = 0.0

    def see(self, events: float, seconds: float) -> None:
        """Take in that so many events came within the last so many seconds."""
        if seconds <= 0:
            return
        self.age_s += seconds
        keep = exp(-seconds / min(self.constant_s, self.age_s))
        self.value = events / seconds if self.age_s == seconds else self.value * keep + events / seconds * (1 - keep)


@dataclass(slots=True)
class Mean:
    """Mean and variance of what was measured, the last `memory` values mostly."""

    memory: int = 200
    count: float = 0.0
    value: float = 0.0
    variance: float = 0.0

    def see(self, measured: float) -> None:
        """Take in one more value."""
        self.count = min(self.count + 1, self.memory)
        share = 1 / self.count
        gap = measured - self.value
        self.value += share * gap
        # West's update, with the weight of the oldest fading: https://doi.org/10.1145/359146.359153
        self.variance = (1 - share) * (self.variance + share * gap * gap)

    def see_many(self, count: float, value: float, variance: float) -> None:
        """Take in so many values at once, of which the mean and the variance are known."""
        if count <= 0:
            return
        self.count = min(self.count + count, self.memory)
        share = min(count / self.count, 1.0)
        gap = value - self.value
        self.value += share * gap
        self.variance = (1 - share) * (self.variance + share * gap * gap) + share * max(variance, 0.0)

    @property
    def variation(self) -> float:
        """Squared coefficient of variation; 1, that of chance, before there is anything to tell."""
        return self.variance / (self.value * self.value) if self.count > 1 and self.value > 0 else 1.0


BUNCHED: Final = 3.0
"""Steps that come together, on average, before it is a bunch: below it a rate that changes explains what was seen."""


@dataclass(slots=True)
class Bunches:
    """What comes many at once, beside what comes steadily.

    Arrivals are counted in blocks of a few seconds, and each is held against the median of those around it. What lasts
    longer than half of these is a new level, which a rate follows; what is shorter is a bunch.
    """

    block_s: float = 2.5
    around: int = 25
    """Blocks, an odd number, the middle one of which is judged: a minute."""
    memory: int = 240
    """Judged blocks that are kept: ten minutes."""
    every: int = 8
    """Blocks after which it is reckoned again what they need."""
    _blocks: deque[float] = field(default_factory=deque)
    _judged: deque[tuple[float, float]] = field(default_factory=deque)
    _came: float = 0.0
    _squares: float = 0.0
    _seen: float = 0.0
    _seconds: float = 0.0
    _fresh: int = 0
    _slots: float = 0.0

    def see(self, events: float, seconds: float) -> None:
        """Take in that so many events came within the last so many seconds."""
        self._seen += events
        self._seconds += seconds
        if self._seconds < self.block_s:
            return
        blocks = self._blocks
        blocks.append(self._seen * self.block_s / self._seconds)
        self._seen = self._seconds = 0.0
        if len(blocks) < self.around:
            return
        self._judge(blocks[self.around // 2], median(blocks))
        blocks.popleft()

    def _judge(self, count: float, level: float) -> None:
        self._judged.append((count, level))
        self._came += count
        self._squares += (count - level) ** 2
        if len(self._judged) > self.memory:
            gone, below = self._judged.popleft()
            self._came -= gone
            self._squares -= (gone - below) ** 2
        self._fresh += 1

    @property
    def size(self) -> float:
        """How many come together: of those that a step comes with, itself counted, the mean over all steps.

        It is the variance of what comes in a block over its mean (https://en.wikipedia.org/wiki/Index_of_dispersion), 1
        where each comes by chance; 1 too as long as there is little to learn from.
        """
        return self._squares / self._came if len(self._judged) >= self.around and self._came >= 1 else 1.0

    def slots(self, service_s: float, patience_s: float, quantile: float) -> float:
        """The fewest slots with which so many of the remembered steps would have started within their patience.

        0 where they do not come in bunches. Each takes `service_s` seconds. Now and then it is reckoned anew.
        """
        if self.size < BUNCHED or service_s <= 0:
            self._slots, self._fresh = 0.0, self.every
        elif self._fresh >= self.every:
            self._slots, self._fresh = self._needed(service_s, patience_s, quantile), 0
        return self._slots

    def _needed(self, service_s: float, patience_s: float, quantile: float) -> float:
        late = (1 - quantile) * self._came
        low, high = 0.0, max(count for count, _ in self._judged) * service_s / patience_s + 1
        while high - low > 0.25:
            middle = (low + high) / 2
            low, high = (low, middle) if self._late(middle, service_s, patience_s) <= late else (middle, high)
        return high + median(self._blocks) * service_s / self.block_s

    def _late(self, slots: float, service_s: float, patience_s: float) -> float:
        """Of the remembered steps, how many so many slots beside those for the level would have begun too late."""
        late = left = 0.0
        for count, level in self._judged:
            beside = slots + level * service_s / self.block_s
            # Who comes after a share of the block finds what was left and as much of what has gathered since.
            gathers, bearable = count * service_s - beside * self.block_s, beside * patience_s - left
            if gathers > 0:
                late += count * min(max(0.0, 1 - bearable / gathers), 1.0)
            elif bearable < 0:
                late += count * (min(1.0, bearable / gathers) if gathers else 1.0)
            left = max(0.0, left + gathers)
        return late


@dataclass(slots=True)
class Lulls:
    """How long a level that was needed is not needed, before it is again.

    A lull begins when what is asked for falls below half of its peak and ends when it is back there. One that lasts
    longer than `most_s` counts as endless: nothing waits for its end.
    """

    most_s: float
    memory: int = 20
    seconds: list[float] = field(default_factory=list)
    """The last ones, `inf` for endless."""
    _peak: float = 0.0
    _since: float | None = None

    def see(self, now: float, level: float) -> None:
        """Take in what is asked for now; `now` in seconds; where its clock goes back, a lull begins anew."""
        if self._since is not None:
            self._since = min(self._since, now)
        if self._since is None:
            if level >= self._peak / 2:
                self._peak = max(self._peak, level)
            else:
                self._since = now
        elif level >= self._peak / 2:
            self._keep(now - self._since)
            self._since, self._peak = None, level
        elif now - self._since > self.most_s:
            self._keep(inf)
            self._since, self._peak = None, level

    def _keep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        del self.seconds[: -self.memory]
