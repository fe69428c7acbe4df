"""What options, events and summaries are made of. Frozen, and an unknown field is refused.

It must not know where a value comes from, or what acts on it.
"""

from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from agentq.core.lanes import Priority

__all__ = [
    "ENDED",
    "AskState",
    "AskSummary",
    "DeadLetter",
    "Event",
    "GateSummary",
    "Model",
    "Needs",
    "Priority",
    "RunStatus",
    "RunSummary",
    "StepSummary",
    "Unserved",
    "Usage",
]

RunStatus = Literal[
    "queued",
    "running",
    "parked",
    "delayed",
    "stopped",
    "unschedulable",
    "condemned",
    "succeeded",
    "failed",
    "cancelled",
]
"""How a run or a step stands.

Delayed: it waits for its time (a retry, a later start), or is held back from a pool that is full. Stopped: it stands
still, by a rule or a person's word, until a person has it go on. Unschedulable: no worker has its code, serves its
version, or serves its pool. Condemned: it is a dead letter, and waits for a person.
"""

ENDED: Final[frozenset[RunStatus]] = frozenset({"succeeded", "failed", "cancelled"})
"""The statuses that nothing leaves."""

AskState = Literal["open", "answered", "closed"]
"""How a question stands. Closed: its run went on without an answer (a time-out, the run's end)."""


def _exact(value: Any) -> Any:
    """A float as its shortest decimal: `Budget(usd=0.1)` is a tenth, not 0.1000000000000000055."""
    return Decimal(repr(value)) if isinstance(value, float) else value


Usd = Annotated[Decimal, BeforeValidator(_exact), Field(ge=0)]


class Model(BaseModel):
    """The base of all: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Needs(Model):
    """What a step needs of its pool. Any further keyword is a tag: `Needs(gpu="a100", os="linux")`."""

    gpu: str | None = None
    """The kind of GPU; a pool's tag `gpu` must be the same."""
    vram_gb: float | None = Field(default=None, gt=0)
    """Least memory of the GPU; a pool's tag `vram_gb` must be at least this."""
    region: str | None = None
    """Where the data may go; a pool's tag `region` must be the same."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Any other tags, which a pool must have with the same values."""

    @model_validator(mode="before")
    @classmethod
    def _gather_tags(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        tags = {name: _tag(value) for name, value in given.items() if name not in cls.model_fields}
        if not tags:
            return given
        known = {name: value for name, value in given.items() if name in cls.model_fields}
        return known | {"tags": {**known.get("tags", {}), **tags}}

    def __init__(
        self,
        *,
        gpu: str | None = None,
        vram_gb: float | None = None,
        region: str | None = None,
        tags: dict[str, str] | None = None,
        **more: str | float | bool,
    ) -> None:
        # Spelled out for editors: what pydantic would derive refuses the further keywords.
        given: dict[str, Any] = {"gpu": gpu, "vram_gb": vram_gb, "region": region, "tags": tags or {}}
        super().__init__(**given, **more)

    def as_tags(self) -> dict[str, str]:
        """Everything that is needed, as a pool's tags would say it."""
        known = {"gpu": self.gpu, "vram_gb": self.vram_gb, "region": self.region}
        return {name: _tag(value) for name, value in known.items() if value is not None} | self.tags


def _tag(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


class Usage(Model):
    """What model calls have used."""

    tokens_in: NonNegativeInt = 0
    tokens_out: NonNegativeInt = 0
    usd: Usd = Decimal(0)
    model: str | None = None
    """None for a sum over several models, or where none was named."""

    def __init__(
        self,
        *,
        tokens_in: int = 0,
        tokens_out: int = 0,
        usd: Decimal | float | str = Decimal(0),
        model: str | None = None,
    ) -> None:
        given: dict[str, Any] = {"tokens_in": tokens_in, "tokens_out": tokens_out, "usd": usd, "model": model}
        super().__init__(**given)

    def __add__(self, other: "Usage") -> "Usage":
        """Both together; the model's name stays if both name the same one."""
        return Usage(
            tokens_in=self.tokens_in + other.tokens_in,
            tokens_out=self.tokens_out + other.tokens_out,
            usd=self.usd + other.usd,
            model=self.model if self.model == other.model else None,
        )


class Event(Model):
    """Something that happened in a run."""

    offset: NonNegativeInt
    """Its place in the run's list of events; `handle.events(after=offset)` goes on behind it."""
    at: AwareDatetime
    """Server time."""
    kind: str
    run_id: str
    step_id: str | None = None
    name: str | None = None
    """The step's or agent's name."""
    worker: str | None = None
    fields: dict[str, Any] = Field(default_factory=dict)
    """What else the kind tells, JSON-able."""


class RunSummary(Model):
    """A run, as listings show it."""

    run_id: str
    agent: str
    """The agent's name; for a canvas the name of its first task."""
    status: RunStatus
    started_at: AwareDatetime | None = None
    """When it was started, not when a worker first took it. Server time, like all times here."""
    finished_at: AwareDatetime | None = None
    tenant: str | None = None
    priority: Priority | None = None
    version: str | None = None
    parent_id: str | None = None
    """The run that called or spawned this one; None for the root."""
    key: str | None = None


class StepSummary(Model):
    """A step, as listings and the timeline show it."""

    step_id: str
    name: str
    status: RunStatus
    attempts: NonNegativeInt = 0
    """How often it was taken, the running attempt included."""
    queue: str | None = None
    """The queue, which has its pool's name; None for a local call."""
    worker: str | None = None
    """The worker of the last attempt."""
    queued_at: AwareDatetime | None = None
    started_at: AwareDatetime | None = None
    """Start of the last attempt."""
    finished_at: AwareDatetime | None = None
    error: str | None = None
    """The last attempt's error, also while another attempt is to come."""
    priority: Priority | None = None
    """None for a local call."""
    why: str | None = None
    """What decided on its queue; of a local call that it ran in place."""


class DeadLetter(Model):
    """A message that nobody takes until a person replays or drops it."""

    letter_id: str
    """A step's own id; a name of the letter's own for what has no record."""
    why: str
    """`poison` (it killed its worker again and again), `undo failed`, `unreadable`, or `unknown task`."""
    words: str
    """What was wrong."""
    at: AwareDatetime | None = None
    queue: str
    priority: Priority
    bytes: NonNegativeInt
    """Size of the message."""
    root_id: str | None = None
    """The root run's id; None, like what follows, for what has no record."""
    step_id: str | None = None
    name: str | None = None
    """The step's or agent's name."""
    deaths: NonNegativeInt = 0
    """How many of its attempts died in a row."""
    worker: str | None = None
    """The worker that held it last."""


class Unserved(Model):
    """A step or a run that no worker could run so far."""

    step_id: str
    root_id: str
    run_id: str
    name: str
    version: str | None = None
    queue: str
    lacks: Literal["task", "version", "worker"]
    """Its code, the version of its agent that it began with, or any worker in its pool."""
    words: str
    since: AwareDatetime | None = None


class AskSummary(Model):
    """A question to a person."""

    ask_id: str
    run_id: str
    agent: str
    question: str
    answer_schema: dict[str, Any] = Field(default_factory=dict)
    """JSON schema of the answer; an empty one allows anything."""
    asked_at: AwareDatetime
    state: AskState = "open"
    answer: Any = None
    answered_by: str | None = None

    @property
    def options(self) -> tuple[Any, ...]:
        """The answers to choose from; empty where the answer is free."""
        return tuple(self.answer_schema.get("enum", ()))


class GateSummary(Model):
    """A breaker, a rate or a limit, as listings show it."""

    kind: Literal["breaker", "limit"]
    name: str
    state: Literal["closed", "open", "half_open"] | None = None
    """Of a breaker."""
    opens_until: AwareDatetime | None = None
    """When an open breaker lets its first probe go."""
    calls: NonNegativeInt | None = None
    """Of a breaker: calls that ended within the window."""
    errors: NonNegativeInt | None = None
    """Those of them that failed, or were too slow."""
    trips: NonNegativeInt | None = None
    """How often it has opened."""
    in_flight: int = 0
    """Attempts that hold a place now; of a breaker its probes."""
    slots: PositiveInt | None = None
    requests: int | None = None
    """Attempts that count within the window now, those that run included."""
    requests_limit: PositiveInt | None = None
    tokens: int | None = None
    """Tokens that count within the window now: used, or reserved by what runs."""
    tokens_limit: PositiveInt | None = None
    window_ms: PositiveInt | None = None
    waiting: NonNegativeInt = 0
    """Steps in its line."""


class CacheSummary(Model):
    """What is known of a cached step, over all tenants and arguments."""

    step: str
    """The step's name."""
    hits: NonNegativeInt = 0
    """Calls that were answered without an attempt."""
    runs: NonNegativeInt = 0
    """Answers that were made, and kept unless they were too large."""
    saved_tokens: NonNegativeInt = 0
    """What the answers of the hits had taken when they were made."""
    saved_usd: Usd = Decimal(0)


class Saved(Model):
    """What kept answers have saved a run and all below it."""

    answers: NonNegativeInt = 0
    """Calls that were answered without an attempt."""
    tokens: NonNegativeInt = 0
    """What these answers had taken when they were made."""
    usd: Usd = Decimal(0)
