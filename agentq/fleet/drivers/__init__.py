"""Drivers: what the controller has workers started and stopped by.

A driver knows one platform and no load. It is asked three things: what there is, to have so many, and to end some
that are done. How many is decided elsewhere, and so is who goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Final, Protocol

from agentq.core.errors import AgentqError, DriverFailed, InvalidSetting, Superseded
from agentq.core.pools import PoolSpec

if TYPE_CHECKING:
    from agentq.store import Store

DRIVERS: Final[dict[str, str]] = {
    "local": "agentq.fleet.drivers.local:make",
    "kubernetes": "agentq.fleet.drivers.kubernetes:make",
    "heroku": "agentq.fleet.drivers.heroku:make",
    "pull": "agentq.fleet.drivers.pull:make",
}
"""By name, where its maker is. Another is named as `module:maker`."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One worker process, pod or dyno, as the platform knows it.

    Attributes:
        name: what its worker says in `AGENTQ_INSTANCE`; without that the dyno's name (`DYNO`) or the host's, which is
            the pod's name on Kubernetes.
        age_s: seconds since it was ordered; start-up times are measured from there.
        is_leaving: whether the platform is ending it already.
    """

    name: str
    age_s: float
    is_leaving: bool = False


@dataclass(frozen=True, slots=True)
class Observed:
    """What the platform has of one pool.

    Attributes:
        wanted: how many instances it was last told to have, those that drain counted; None where it does not say.
        instances: those that exist; None where the platform cannot list them: then each living worker counts as one.
        trouble: what keeps the platform from having as many as wanted, in words; None when nothing does.
        is_unknown: whether the platform did not say what there is of this pool, for the reason in `trouble`: then
            nothing is ordered for it, and the other pools are served all the same.
    """

    wanted: int | None
    instances: tuple[Instance, ...] | None = None
    trouble: str | None = None
    is_unknown: bool = False


class Driver(Protocol):
    """One platform. All calls come from one thread, about once a second; none may wait for a worker to start or end.

    `fence` is the number of the leader's lease on the pool and grows with each new leader. A platform that can keep
    it compares it, in one step with the change, and raises `Superseded` for one that is smaller than the greatest it
    has seen; one that cannot relies on the store, which is asked right before each call.
    A call that the platform refuses raises `DriverFailed`; the controller tells it and tries again, more and more
    seldom. A repeat of a call changes nothing.
    """

    name: str
    chooses: bool
    """Whether `drain` can end instances by their names. Where it cannot, a pool shrinks by `apply`: the platform picks
    who goes, and relies on what a worker does with what it runs when it is sent SIGTERM."""
    acts: bool
    """False where the platform pulls the number by itself, and `apply` does nothing."""

    def observe(self, pools: Sequence[str]) -> Mapping[str, Observed]:
        """What there is of each pool."""

    def apply(self, pool: str, instances: int, *, fence: int) -> None:
        """There will be so many instances, those that drain counted."""

    def drain(self, pool: str, names: Sequence[str], *, fence: int) -> None:
        """These instances end and are not replaced. They take nothing any more and hold nothing."""

    def close(self, *, keep: bool) -> None:
        """The controller ends. `keep`: what runs goes on without it; else what the driver started ends too."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a driver is made with.

    Attributes:
        pools: those that are scaled, as they are declared now; `target` in one names it on the platform.
        store: for a driver that has to look there.
        command: the command line and environment of a worker for a pool, on this machine; `instance` is its name.
        folder: for what the driver has to remember on this machine.
        say: tells the person who started the controller; pool or instance, and words.
        hear: takes each line of the workers' own output, where somebody wants to see it; by instance.
        outlives: whether workers that the driver starts go on when its process is killed.
        grace_s: how long what runs may take when they are to end with the controller; `hurry`, once set, ends that.
    """

    pools: Callable[[], Mapping[str, PoolSpec]]
    store: Store
    command: Callable[[str, str], tuple[list[str], Mapping[str, str]]]
    folder: Path
    say: Callable[[str, str], None] = field(default=lambda who, words: None)
    hear: Callable[[str, str], None] | None = None
    outlives: bool = True
    grace_s: float = 30.0
    hurry: Event = field(default_factory=Event)

    def target(self, pool: str, driver: str) -> str:
        """What the pool is called on the platform; raises DriverFailed for one that has just left the pools file."""
        spec = self.pools().get(pool)
        if spec is None:
            raise DriverFailed(driver=driver, pool=pool, reason="the pools file does not declare it any more")
        return spec.target or pool


def make_driver(name: str, setup: Setup) -> Driver:
    """The driver of that name, or of the maker `module:attribute`; raises InvalidSetting for another name."""
    place = DRIVERS.get(name, name)
    module, colon, attribute = place.partition(":")
    if not colon:
        known = ", ".join(sorted(DRIVERS))
        raise InvalidSetting(
            name="autoscale_driver",
            value=name,
            reason=f"there is no such driver: it is one of {known}, or module:maker",
        )
    try:
        maker = getattr(import_module(module), attribute)
    except Exception as error:  # whatever a module of somebody else's raises when it is loaded
        reason = f"its maker cannot be imported: {type(error).__name__}: {error}"
        raise InvalidSetting(name="autoscale_driver", value=name, reason=reason) from error
    if not callable(maker):
        raise InvalidSetting(name="autoscale_driver", value=name, reason=f"{attribute} is no function that makes one")
    driver: Driver = _made(maker, name, setup)
    lacking = [each for each in _WORDS if not hasattr(driver, each)]
    if lacking:
        raise InvalidSetting(
            name="autoscale_driver",
            value=name,
            reason=f"the {type(driver).__name__} that it makes is no driver: it has no {', '.join(lacking)}",
        )
    return driver


def _made(maker: Callable[[Setup], Driver], name: str, setup: Setup) -> Driver:
    try:
        return maker(setup)
    except AgentqError:
        raise
    except Exception as error:
        # Not its message, which may hold a key: it stands in the traceback.
        reason = f"its maker raised {type(error).__name__}: --debug shows where"
        raise InvalidSetting(name="autoscale_driver", value=name, reason=reason) from error


_WORDS: Final = ("name", "chooses", "acts", "observe", "apply", "drain", "close")


__all__ = ["DRIVERS", "Driver", "DriverFailed", "Instance", "Observed", "Setup", "Superseded", "make_driver"]
