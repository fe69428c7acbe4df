"""Rates, means and lulls that follow what happens. It owns no clock: each reading brings its time."""

from dataclasses import dataclass, field
from math import exp, inf


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
        """Take in what is asked for now; `now` in seconds, on any clock that does not jump."""
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
