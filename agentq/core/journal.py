"""The entries of a run's journal: what the agent saw (inputs), and what it asked for (asks).

A journal is a list of JSON objects; an entry's place in the list is its index. It owns their spelling; what
an agent does with them is the runtime's.

| k      | Entry  | Input | Fields                                                                      |
|--------|--------|-------|-----------------------------------------------------------------------------|
| start  | Start  | yes   | version; of a fork: of, lags; always the first entry                         |
| result | Result | yes   | id of the ask; s: ok, error, revoked; v: value or error's wire form; ref, ran, hit, by, u |
| joined | Joined | yes   | id of the ask whose members have arrived; at: the winners' places; u        |
| signal | Signal | yes   | n: name; v: payload; i: the signal's id                                     |
| answer | Answer | yes   | id of the ask; v: the answer                                                |
| tick   | Tick   | yes   | nothing but the time                                                        |
| cancel | Cancel | yes   | why                                                                         |
| resume | Resume | yes   | allow: rules that are not to stop the run again                             |
| ask    | Ask    | no    | id, key, kind, name, after; n, q and schema by kind; again, of              |

Every input has `t`, the server's time in ms, which the script that appends it puts there.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, cast, get_args

from pydantic_core import to_json

from agentq.core.codec import dumps, loads, present
from agentq.core.error_base import Wire
from agentq.core.errors import JournalUnreadable

AskKind = Literal["call", "map", "canvas", "local", "ask", "spawn", "emit", "undo"]
ResultStatus = Literal["ok", "error", "revoked"]

_SHOWN_CHARACTERS: Final = 200

_PLAIN: Final = frozenset({int, bool, type(None)})
"""What is written as it is. Text may hold what UTF-8 cannot, which `dumps` tells of."""

_STATUSES: Final = frozenset(get_args(ResultStatus))
_KINDS: Final = frozenset(get_args(AskKind))


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """Something that the agent sees. `t` is server time in ms; None until a script has appended it."""

    k: ClassVar[str]
    t: int | None = None


@dataclass(frozen=True, slots=True)
class Start(Input):
    """The run began, with this version of the agent; None where the agent has none.

    A fork has the first inputs of another run, `origin`, whose random numbers it draws again. Its timers run behind the
    server's clock, since the time between the two runs does not count: each of `lags` says after how many inputs by how
    many ms more; a fork of a fork has several.
    """

    k: ClassVar[str] = "start"
    version: str | None = None
    origin: str | None = None
    lags: tuple[tuple[int, int], ...] = ()

    def lag_at(self, place: int) -> int:
        """By how many ms the timers are behind at the time of this input, counted from 1."""
        return sum(lag for after, lag in self.lags if place > after)


@dataclass(frozen=True, slots=True)
class Result(Input):
    """A step, a child run or a local call ended. `id` is the ask's.

    `value` is the result if `status` is ok, else the error's wire form, or None where nothing is known. With
    `large` the value stands in a key of its own, and `value` is None. `ran` says of a revoked step that it had started,
    `hit` that the cache has answered. `by` is the id of the hedge that ended it; None where the step itself did.
    `tokens` is what its last attempt said that it used.
    """

    k: ClassVar[str] = "result"
    id: str
    status: ResultStatus
    value: Any = None
    large: bool = False
    ran: bool = False
    tokens: int = 0
    hit: bool = False
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Joined(Input):
    """The join of the ask `id` was released; its members' outcomes stand in the store.

    `at` are the places of those that succeeded first, where that many were enough; None when all have arrived.
    `tokens` is what they said that they used.
    """

    k: ClassVar[str] = "joined"
    id: str
    at: tuple[int, ...] | None = None
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Signal(Input):
    """A message from outside. `id` is the signal's own: the same id is appended once."""

    k: ClassVar[str] = "signal"
    name: str
    id: str
    payload: Any = None


@dataclass(frozen=True, slots=True)
class Answer(Input):
    """A person answered the ask `id`."""

    k: ClassVar[str] = "answer"
    id: str
    value: Any


@dataclass(frozen=True, slots=True)
class Tick(Input):
    """A timer of the run is due."""

    k: ClassVar[str] = "tick"


@dataclass(frozen=True, slots=True)
class Cancel(Input):
    """Somebody cancelled the run."""

    k: ClassVar[str] = "cancel"
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Resume(Input):
    """A person had the run go on that stood still. The rules in `allow` are not to stop it again.

    What the run did before it is no evidence against it any more.
    """

    k: ClassVar[str] = "resume"
    allow: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """Something that the agent asked for, under its key.

    `after` is the number of inputs that the agent had seen when it asked. `members` is the size of a map;
    `question` and `answer_schema` (JSON schema) belong to a question to a person. `again`: a fork has the ask from its
    origin, and is yet to send it. `undoes` is the id of the ask that this one takes back.
    """

    k: ClassVar[str] = "ask"
    id: str
    key: str
    kind: AskKind
    name: str
    after: int
    members: int | None = None
    question: str | None = None
    answer_schema: dict[str, Any] | None = None
    again: bool = False
    undoes: str | None = None


Entry = Start | Result | Joined | Signal | Answer | Tick | Cancel | Resume | Ask


def ok(ask_id: str, value: Any) -> Result:
    """The input that a step, child or local call succeeded with this JSON-able value."""
    return Result(id=ask_id, status="ok", value=value)


def failed(ask_id: str, error: Wire) -> Result:
    """The input that a step, child or local call failed with this error."""
    return Result(id=ask_id, status="error", value=error)


def encode(entry: Entry) -> str:
    """The entry as one line of compact JSON; fields that say nothing are left out."""
    if isinstance(entry, Ask):
        # All of it is text and numbers, but for a schema, which is JSON.
        return to_json({"k": "ask", **_asked(entry)}).decode()
    if entry.__class__ is Result and type(entry.value) in _PLAIN:
        return to_json({"k": "result", **_fields(entry)}).decode()
    return dumps({"k": entry.k, **_fields(entry)})


def decode(line: bytes | str) -> Entry:
    """The entry that the line holds.

    Fields that this version does not know are left out. Raises JournalUnreadable for what is no JSON object,
    has an unknown `k`, or lacks a field.
    """
    try:
        raw = loads(line)
        return _entry(raw)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        text = line if isinstance(line, str) else line.decode("utf-8", "replace")
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise JournalUnreadable(entry=text[:_SHOWN_CHARACTERS], reason=reason) from error


def _asked(entry: Ask) -> dict[str, Any]:
    return present(
        {
            "id": entry.id,
            "key": entry.key,
            "kind": entry.kind,
            "name": entry.name,
            "after": entry.after,
            "n": entry.members,
            "q": entry.question,
            "schema": entry.answer_schema,
            "of": entry.undoes,
            "again": 1 if entry.again else None,
        }
    )


def _fields(entry: Input) -> dict[str, Any]:
    time = {} if entry.t is None else {"t": entry.t}
    match entry:
        case Start(version=version, origin=None):
            return time | {"version": version}
        case Start(version=version, origin=origin, lags=lags):
            return time | {"version": version, "of": origin, "lags": lags}
        case Result(id=ask_id, status=status):
            said = {"ran": entry.ran, "hit": entry.hit, "ref": entry.large}
            marks: dict[str, Any] = {name: 1 for name, whether in said.items() if whether}
            by = {} if entry.by is None else {"by": entry.by}
            value = {} if entry.large else {"v": entry.value}
            return time | {"id": ask_id, "s": status} | value | marks | by | _used(entry.tokens)
        case Joined(id=ask_id, at=None, tokens=tokens):
            return time | {"id": ask_id} | _used(tokens)
        case Joined(id=ask_id, at=winners, tokens=tokens):
            return time | {"id": ask_id, "at": winners} | _used(tokens)
        case Signal(name=name, id=signal_id, payload=payload):
            return time | {"n": name, "v": payload, "i": signal_id}
        case Answer(id=ask_id, value=value):
            return time | {"id": ask_id, "v": value}
        case Cancel(why=why):
            return time | {"why": why}
        case Resume(allow=allow):
            return time | {"allow": list(allow)}
        case _:
            return time


def _used(tokens: int) -> dict[str, int]:
    return {"u": tokens} if tokens else {}


def _entry(raw: dict[str, Any]) -> Entry:
    time = raw.get("t")
    match raw["k"]:
        case "start":
            lags = tuple((after, lag) for after, lag in raw.get("lags", ()))
            return Start(t=time, version=raw.get("version"), origin=raw.get("of"), lags=lags)
        case "result":
            return _result(raw, time)
        case "joined":
            winners = raw.get("at")
            places = None if winners is None else tuple(winners)
            return Joined(t=time, id=raw["id"], at=places, tokens=raw.get("u", 0))
        case "signal":
            return Signal(t=time, name=raw["n"], id=raw["i"], payload=raw["v"])
        case "answer":
            return Answer(t=time, id=raw["id"], value=raw["v"])
        case "tick":
            return Tick(t=time)
        case "cancel":
            return Cancel(t=time, why=raw.get("why"))
        case "resume":
            # cjson writes an empty list as an object.
            return Resume(t=time, allow=tuple(raw.get("allow") or ()))
        case "ask":
            return _ask(raw)
        case other:
            raise ValueError(f'its kind "{other}" is unknown')


def _result(raw: dict[str, Any], time: int | None) -> Result:
    status = raw["s"]
    if status not in _STATUSES:
        raise ValueError(f'its status "{status}" is unknown')
    large = bool(raw.get("ref"))
    return Result(
        t=time,
        id=raw["id"],
        status=status,
        value=None if large else raw.get("v"),
        large=large,
        ran=bool(raw.get("ran")),
        tokens=raw.get("u", 0),
        hit=bool(raw.get("hit")),
        by=raw.get("by"),
    )


def _ask(raw: dict[str, Any]) -> Ask:
    if raw["kind"] not in _KINDS:
        raise ValueError(f'its kind "{raw["kind"]}" of ask is unknown')
    return Ask(
        id=raw["id"],
        key=raw["key"],
        kind=cast(AskKind, raw["kind"]),
        name=raw["name"],
        after=raw["after"],
        members=raw.get("n"),
        question=raw.get("q"),
        answer_schema=raw.get("schema"),
        again=bool(raw.get("again")),
        undoes=raw.get("of"),
    )
