"""Every error that agentq raises, how it crosses processes, and what it says.

AgentqError
├── UsageError            fix the code or the configuration
│   ├── InvalidArguments    a call does not fit the step's signature or hints
│   ├── InvalidResult       a step returned what its hint does not allow, or what JSON cannot hold
│   ├── InvalidSetting      a setting is unknown, or its value is wrong
│   ├── InvalidFile         a configuration file is missing, broken or wrong
│   ├── UnknownAgent        no agent of that name is known here
│   ├── UnknownPool         no pool of that name is declared
│   ├── NoPoolFor           no declared pool meets the needs
│   ├── DevicesMissing      a worker's machine lacks the GPUs that its pool declares
│   ├── DeviceTaken         CUDA was used before a worker's children were made
│   ├── KeyReused           the start key stands for a run with other arguments
│   └── NotInRun            what needs a run was used outside one
├── RunError              this run, or this step of it, cannot go on
│   ├── RunNotFound         no such run, or its retention is over
│   ├── RunFailed           the agent raised
│   ├── RunCancelled        somebody cancelled it
│   ├── StepFailed          a step raised, and its attempts are used up
│   ├── ResultRefused       a step's result did not pass its check
│   ├── StepTimeout         an attempt ran longer than its limit
│   │   └── TurnTimeout       an agent computed for too long between two awaits
│   ├── StepCondemned       its dead letter was dropped
│   ├── JoinFailed          too few members of a fan-out succeeded
│   ├── BudgetExceeded      a limit of the run is reached
│   ├── ReplayMismatch      the agent's code asks for something else than its journal holds
│   ├── JournalUnreadable   a journal entry is broken, or of a newer version
│   └── LetterNotFound      no such dead letter
├── OwnershipLost         this worker must stop
│   ├── StaleHolder         another attempt holds the step
│   ├── CalledOff           nobody wants the step any more
│   └── Superseded          another controller leads the pool
└── Unavailable           later it may work
    ├── StoreUnavailable    Redis cannot be reached
    ├── QueueFull           too many steps wait in the pool, or too many of a tenant's
    ├── ArchiveUnavailable  the archive of ended runs cannot be reached
    ├── NoWorkers           no worker serves the pools
    ├── BreakerOpen         a breaker keeps calls away
    ├── LimitReached        a rate or limit has no room for a fallback now
    ├── DriverFailed        the platform did not start or end workers
    └── GetTimeout          the run has not ended in the time given

An error crosses processes as `{"code", "fields"}` and is rebuilt as the same class by `from_wire`.
"""

from collections.abc import Iterable

from agentq.core.error_base import (
    AgentqError,
    OwnershipLost,
    RunError,
    Unavailable,
    UsageError,
    Wire,
    ended,
    from_wire,
    listed,
)
from agentq.core.run_errors import (
    BudgetExceeded,
    JoinFailed,
    JournalUnreadable,
    LetterNotFound,
    ReplayMismatch,
    ResultRefused,
    RunCancelled,
    RunFailed,
    RunNotFound,
    StepCondemned,
    StepFailed,
    StepTimeout,
    TurnTimeout,
)
from agentq.core.usage_errors import (
    DevicesMissing,
    DeviceTaken,
    InvalidArguments,
    InvalidFile,
    InvalidResult,
    InvalidSetting,
    KeyReused,
    NoPoolFor,
    NotInRun,
    UnknownAgent,
    UnknownPool,
)

__all__ = [
    "AgentqError",
    "ArchiveUnavailable",
    "BreakerOpen",
    "BudgetExceeded",
    "CalledOff",
    "DeviceTaken",
    "DevicesMissing",
    "DriverFailed",
    "GetTimeout",
    "InvalidArguments",
    "InvalidFile",
    "InvalidResult",
    "InvalidSetting",
    "JoinFailed",
    "JournalUnreadable",
    "KeyReused",
    "LetterNotFound",
    "LimitReached",
    "NoPoolFor",
    "NoWorkers",
    "NotInRun",
    "OwnershipLost",
    "QueueFull",
    "ReplayMismatch",
    "ResultRefused",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunNotFound",
    "StaleHolder",
    "StepCondemned",
    "StepFailed",
    "StepTimeout",
    "StoreUnavailable",
    "Superseded",
    "TurnTimeout",
    "Unavailable",
    "UnknownAgent",
    "UnknownPool",
    "UsageError",
    "Wire",
    "from_wire",
]


class StaleHolder(OwnershipLost):
    """Another attempt holds the step. `holder` is empty and `take` 0 where nobody holds it any more."""

    code = "stale_holder"
    step: str
    run_id: str
    holder: str
    take: int
    mine: str
    my_take: int

    def __init__(self, *, step: str, run_id: str, holder: str, take: int, mine: str, my_take: int) -> None:
        self._fill(step=step, run_id=run_id, holder=holder, take=take, mine=mine, my_take=my_take)

    def describe(self) -> str:
        if not self.holder:
            return (
                f'Step "{self.step}" of run {self.run_id} is no longer held, also not by {self.mine} '
                f"(take {self.my_take}): it was given back or is done. Stop without writing."
            )
        return (
            f'Step "{self.step}" of run {self.run_id} is held by worker {self.holder} (take {self.take}), '
            f"not by {self.mine} (take {self.my_take}): another worker owns it. Stop without writing."
        )


class CalledOff(OwnershipLost):
    """The step's run, or the call that it belongs to, was cancelled: REVOKED is the only outcome it may have."""

    code = "called_off"
    step: str
    run_id: str

    def __init__(self, *, step: str, run_id: str) -> None:
        self._fill(step=step, run_id=run_id)

    def describe(self) -> str:
        return f'Step "{self.step}" of run {self.run_id} was called off: its run, or its call, was cancelled.'


class Superseded(OwnershipLost):
    """Another controller leads the pool: its fence, the number of its lease, is greater than this one's."""

    code = "superseded"
    pool: str
    fence: int
    newest: int

    def __init__(self, *, pool: str, fence: int, newest: int) -> None:
        self._fill(pool=pool, fence=fence, newest=newest)

    def describe(self) -> str:
        return (
            f'Pool "{self.pool}" is led by another controller (fence {self.newest}, ours is {self.fence}): '
            "nothing was changed. This one waits until the other's lease is over."
        )


class StoreUnavailable(Unavailable):
    """Redis cannot be reached. `url` must come without its password."""

    code = "store_unavailable"
    url: str
    reason: str

    def __init__(self, *, url: str, reason: str) -> None:
        self._fill(url=url, reason=reason)

    def describe(self) -> str:
        return ended(f"The store at {self.url} cannot be reached: {self.reason}") + ' "agentq doctor" tells more.'


class QueueFull(Unavailable):
    """Too many steps wait in the pool already, or too many of the tenant's; nothing was sent.

    `wait_s` is how long a start would be expected to wait there; None where no worker serves the pool.
    """

    code = "queue_full"
    pool: str
    waiting: int
    limit: int
    tenant: str | None
    wait_s: float | None

    def __init__(
        self, *, pool: str, waiting: int, limit: int, tenant: str | None = None, wait_s: float | None = None
    ) -> None:
        self._fill(pool=pool, waiting=waiting, limit=limit, tenant=tenant, wait_s=wait_s)

    def describe(self) -> str:
        whose = f' of tenant "{self.tenant}"' if self.tenant is not None else ""
        wait = "no worker serves it" if self.wait_s is None else f"a start would wait for about {self.wait_s:.1f} s"
        return (
            f'Pool "{self.pool}" is full: {self.waiting} steps{whose} wait there, and max_waiting is {self.limit}; '
            f'{wait}. Start again later, call using(on_full="wait"), add workers, or raise max_waiting.'
        )


class ArchiveUnavailable(Unavailable):
    """The database that keeps ended runs cannot be reached or written. `url` must come without its password."""

    code = "archive_unavailable"
    url: str
    reason: str

    def __init__(self, *, url: str, reason: str) -> None:
        self._fill(url=url, reason=reason)

    def describe(self) -> str:
        return ended(f"The archive at {self.url} cannot be used: {self.reason}") + (
            " Runs whose keys stand in the store are read all the same, and none is lost meanwhile."
        )


class NoWorkers(Unavailable):
    """No worker serves these pools."""

    code = "no_workers"
    pools: list[str]

    def __init__(self, *, pools: Iterable[str]) -> None:
        self._fill(pools=sorted(pools))

    def describe(self) -> str:
        start = " ".join(f"--pool {name}" for name in self.pools)
        return f"No worker serves {listed(self.pools)}. Start one: agentq worker {start}"


class BreakerOpen(Unavailable):
    """The breaker keeps calls away; the first may pass again after `retry_after` seconds."""

    code = "breaker_open"
    name: str
    retry_after: float

    def __init__(self, *, name: str, retry_after: float) -> None:
        self._fill(name=name, retry_after=retry_after)

    def describe(self) -> str:
        return (
            f'Breaker "{self.name}" is open: what it guards has failed too often of late. '
            f"The next call may pass in {self.retry_after:g} s."
        )


class LimitReached(Unavailable):
    """A rate or limit has no room for a fallback, which does not wait; perhaps after `retry_after` seconds."""

    code = "limit_reached"
    name: str
    retry_after: float

    def __init__(self, *, name: str, retry_after: float) -> None:
        self._fill(name=name, retry_after=retry_after)

    def describe(self) -> str:
        return f'Limit "{self.name}" has no room now. There may be some in {self.retry_after:g} s.'


class DriverFailed(Unavailable):
    """The platform did not do what its driver asked of it. `reason` must hold no secret."""

    code = "driver_failed"
    driver: str
    pool: str
    reason: str

    def __init__(self, *, driver: str, pool: str, reason: str) -> None:
        self._fill(driver=driver, pool=pool, reason=reason)

    def describe(self) -> str:
        return ended(f'Driver "{self.driver}" could not size pool "{self.pool}": {self.reason}') + (
            " It is tried again; what runs goes on."
        )


class GetTimeout(Unavailable, TimeoutError):
    """The run has not ended within the time given; it goes on."""

    code = "get_timeout"
    run_id: str
    seconds: float

    def __init__(self, *, run_id: str, seconds: float) -> None:
        self._fill(run_id=run_id, seconds=seconds)

    def describe(self) -> str:
        return f"Run {self.run_id} has not ended within {self.seconds:g} s. It goes on; ask again later."
