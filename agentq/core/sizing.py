"""What a controller decided for a pool, and what it saw: the form in which decisions are kept and shown.

Whoever shows or serves them (a listing, a metrics endpoint) reads these, and decides nothing.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from agentq.core.models import Model
from agentq.core.scaling import PoolLoad, Size

KEPT_PEAKS: Final = 16
"""So many of the numbers that a decision looks back on stand in it: it is kept, and read often."""


class StepPace(Model):
    """How the attempts of one step fare in a pool, lately."""

    per_second: NonNegativeFloat = 0
    """Attempts that ended."""
    service_s: NonNegativeFloat = 0
    """Mean time of one."""
    variation: NonNegativeFloat = 1
    """Squared coefficient of variation of these times."""
    failed: float = Field(default=0, ge=0, le=1)
    """Share of the attempts that failed."""
    asks: NonNegativeFloat = 0
    """Of an agent: steps that one turn asks for, on average, in all pools."""
    depth: NonNegativeFloat = 0
    """Of an agent: turns that a run takes, on average; how deep it reasons."""


class Cognition(Model):
    """What the agents of a pool do, beside how busy it is."""

    depth: NonNegativeFloat = 0
    """Turns that a run of the pool's agents takes, on average."""
    calls_per_second: NonNegativeFloat = 0
    """Steps that agents asked for in this pool."""
    failed: float = Field(default=0, ge=0, le=1)
    """Share of the pool's attempts that failed, lately."""
    tokens_per_second: NonNegativeFloat = 0
    """Tokens that the pool's steps spent, in and out."""
    expected: NonNegativeFloat = 0
    """Steps that running agents are expected to ask this pool for next."""


class Decision(Model):
    """How many workers a pool is to have, with all that led to it."""

    pool: str
    at_ms: NonNegativeInt
    """By the server's clock."""
    fence: NonNegativeInt
    """Of the leader that decided; grows with each new one."""
    leader: str = ""
    """What the controller calls itself."""
    driver: str = ""
    had: NonNegativeInt
    """Workers that were ready or starting."""
    desired: NonNegativeInt
    """Workers that there are to be; those that drain are not counted."""
    instances: NonNegativeInt = 0
    """What the platform has: ready, starting, resting and draining ones."""
    draining: NonNegativeInt = 0
    """Workers that take nothing more and go when they are done."""
    resting: NonNegativeInt = 0
    """Workers that are not well and take nothing for now."""
    kept: NonNegativeInt = 0
    """Of those that rest, for how many the pool's `max` has room beside `desired`."""
    mode: Literal["acts", "dry", "pulled"] = "acts"
    """Whether a driver applies it (acts), nobody does (dry), or the platform pulls it (pulled)."""
    trouble: str | None = None
    """What hinders it: the driver's words, a worker that does not start."""
    load: PoolLoad
    size: Size
    cognition: Cognition = Field(default_factory=Cognition)
    steps: dict[str, StepPace] = Field(default_factory=dict)
    """By the name of a step or an agent."""
    past: tuple[tuple[NonNegativeInt, NonNegativeInt], ...] = Field(default=(), max_length=KEPT_PEAKS)
    """The numbers of workers asked for that hold it up, each with its time (ms): for whoever decides next."""
    ended: NonNegativeInt = 0
    """Attempts that have ended in the pool, ever: whether something came between two decisions."""

    @property
    def why(self) -> str:
        """In a few words, for people."""
        return self.size.why if self.trouble is None else f"{self.size.why}; {self.trouble}"

    @property
    def replicas(self) -> int:
        """Instances that a platform which pulls is to have.

        Those that rest count there: it knows no difference, and would end one that works in their place.
        """
        return self.desired + self.kept

    @property
    def foretold(self) -> str | None:
        """What the weeks before would ask for, in a few words, where it is more than was decided; else None."""
        forecast = self.size.forecast
        if forecast is None or forecast <= self.desired:
            return None
        return f"the weeks before would ask for {forecast}"
