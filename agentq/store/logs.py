"""An agent's log: read, send, park, append; signals, answers, cancels."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Literal, TypedDict, Unpack

from agentq.core.errors import InvalidArguments
from agentq.store.refs import GoOn, Holder, Join, Offer, Taken
from agentq.store.steps import StepCalls
from agentq.store.wire import counted, dump, joins_arguments, offers_arguments, parse_taken

AppendReply = Literal["new", "known", "unknown", "ended", "moved"]
_APPENDED: dict[int, AppendReply] = {1: "new", 0: "known", -1: "unknown", -2: "ended", -3: "moved"}

_STOPPED = 2
"""Of a send: the run stands still."""


_BY_SEND = 3
"""Of a journal: there is more to look at than it does."""


class StandsStill(Exception):
    """The run was stopped, and its turn is over: no error, but nothing that a caller may go on from."""


class Sent(TypedDict, total=False):
    """What a turn sends: JSON of its asks, results and events, what is to be dispatched, and what it has used.

    ``payloads``: name and JSON of large results to which ``results`` refer. ``stop``: the rule by which the run is a
    zombie, and why.
    """

    asks: Sequence[str]
    joins: Sequence[Join]
    offers: Sequence[Offer]
    questions: Sequence[str]
    results: Sequence[str]
    events: Sequence[str]
    payloads: Sequence[tuple[str, str]]
    tick: bool
    closes: Sequence[str]
    cancels: Sequence[str]
    usage: dict[str, int] | None
    accounts: Sequence[dict[str, Any]]
    stop: dict[str, str] | None


class LogCalls(StepCalls):
    """The scripts that move an agent's run between its turns."""

    most_input_bytes: int | None = None
    """Of a signal or an answer, as JSON; None: no limit. It stands in the journal, which every replay reads whole."""

    def read_log(self, root: str, run: str, start: int = 0) -> list[bytes]:
        """Return the entries from position ``start`` on."""
        entries: list[bytes] = self.query("LRANGE", self.keys.log(root, run), start, -1)
        return entries

    def send(self, holder: Holder, *, token: str, seen: int, **parts: Unpack[Sent]) -> list[bytes]:
        """Record and dispatch what a turn asks for, append what it did in place; return the log from ``seen`` on.

        The same token twice writes once.

        Raises:
            StaleHolder: another holds the run.
            StandsStill: the run was stopped, by this or before: what it asks for is recorded, its next turn sends it,
                and it is not held any more.
        """
        return list(self._send(holder, {**holder.to_wire(), "token": token, "seen": seen}, parts))

    def journal(
        self, holder: Holder, *, seen: int, asks: Sequence[str], results: Sequence[str]
    ) -> int | list[bytes] | None:
        """Append what local calls came to, as ``send`` would with these alone; called twice it writes once.

        Returns the server's time at which they stand right behind ``seen``, or the log from there where there is more.
        None: nothing was written, and ``send`` has to do it.

        Raises StaleHolder when another holds the run.
        """
        places = (holder.root, holder.id, holder.worker, holder.take, seen, len(asks))
        reply: list[Any] = self.run_script("journal", *places, *asks, *results)
        if reply[0] == _BY_SEND:
            return None
        self.expect_held(reply, holder, "")
        return int(reply[1]) if len(reply) == 2 else reply[2:]

    def send_and_take(
        self, holder: Holder, *, token: str, seen: int, terms: GoOn, **parts: Unpack[Sent]
    ) -> tuple[list[bytes], Taken | None]:
        """Send the one step that the turn waits for, and take what its slot runs meanwhile: that step, if it may.

        Returns the log from ``seen`` on, and what was taken, if anything was. Else as ``send``.
        """
        header = {**holder.to_wire(), "token": token, "seen": seen, "next": terms.to_wire()}
        taken, *tail = self._send(holder, header, parts)
        return tail, parse_taken(taken, 1) if len(taken) > 1 else None

    def _send(self, holder: Holder, header: dict[str, Any], parts: Sent) -> Sequence[Any]:
        payloads = parts.get("payloads", ())
        self.put_payloads(holder.root, payloads)
        optional: dict[str, Any] = {"payloads": [name for name, _ in payloads]}
        for field in ("tick", "closes", "cancels", "usage", "stop"):
            optional[field] = parts.get(field)
        optional["accounts"] = list(parts.get("accounts", ()))
        header.update({field: value for field, value in optional.items() if value})
        reply: Sequence[Any] = self.run_script(
            "send",
            dump(header),
            *counted(parts.get("asks", ())),
            *joins_arguments(self.stowed_bodies(parts.get("joins", ()))),
            *offers_arguments(self.stowed(parts.get("offers", ()))),
            *counted(parts.get("questions", ())),
            *counted(parts.get("results", ())),
            *counted(parts.get("events", ())),
        )
        if int(reply[0]) == _STOPPED:
            raise StandsStill(holder.id)
        self.expect_held(reply, holder, "")
        return reply[1:]

    def park(
        self, holder: Holder, *, seen: int, due_ms: int | None, waits: Sequence[str] = (), rest_ms: int = 0
    ) -> bool:
        """Give the worker back until an input comes; False when the log has grown past ``seen``: go on.

        ``due_ms`` is the server time of the run's next timer; ``waits`` names the signals that wake it. For
        ``rest_ms`` only a cancel does; what else comes wakes it then.
        Raises StaleHolder when another holds the run.
        """
        due = "" if due_ms is None else due_ms
        wishes = (seen, due, dump(list(waits)), rest_ms)
        reply = int(self.run_script("park", holder.root, holder.id, holder.worker, holder.take, *wishes))
        if reply < 0:
            self.expect_held([0, b"", b"", b""], holder, "")
        return reply == 1

    def wait_log(self, root: str, run: str, timeout: float) -> bool:
        """Block until something was appended to a log, at most ``timeout`` seconds; False when nothing was.

        True may be late news: read the log to know.
        """
        key = self.keys.wake(root, run)
        return self.guarded(lambda: self.patient.blpop([key], timeout=max(timeout, 0.001))) is not None

    def restart(
        self,
        holder: Holder,
        *,
        token: str,
        seen: int,
        message: str,
        payload: str | None = None,
        version: str | None,
        carry: Sequence[str],
        cancels: Sequence[str] = (),
    ) -> None:
        """Begin the run's next log with the inputs in ``carry`` and those after ``seen``, and queue its next turn.

        ``payload`` names the large arguments of ``message``, which are written already.

        Raises StaleHolder when another holds the run.
        """
        header = {"seen": seen} | ({"pl": payload} if payload is not None else {})
        reply = self.run_script(
            "restart",
            holder.root,
            holder.id,
            holder.worker,
            holder.take,
            token,
            dump(header),
            message,
            version or "",
            *counted(carry),
            *counted(cancels),
        )
        self.expect_held([int(reply), b"", b"", b""], holder, "")

    def signal(self, root: str, run: str, name: str, payload: str, *, signal_id: str | None = None) -> AppendReply:
        """Append a signal (``payload`` is JSON) once per id; the reply says what came of it.

        Raises InvalidArguments when it is too large.
        """
        self._check_size(f'signal "{name}"', "payload", payload)
        token = uuid.uuid4().hex
        identity = signal_id if signal_id is not None else token
        return _APPENDED[int(self.run_script("append", "signal", root, run, token, name, payload, identity))]

    def cancel(self, root: str, run: str, why: str) -> AppendReply:
        """Append a cancel to a run; the reply says what came of it."""
        return _APPENDED[int(self.run_script("append", "cancel", root, run, uuid.uuid4().hex, dump(why)))]

    def stop(self, root: str, run: str, why: str, *, rule: str, seen: int = -1) -> AppendReply:
        """Have a run and all below it stand still; the reply says what came of it.

        With ``seen`` only if its log has not grown past that: else the reply is ``moved``.
        """
        stop = dump({"why": why, "rule": rule})
        return _APPENDED[int(self.run_script("append", "stop", root, run, uuid.uuid4().hex, stop, seen))]

    def resume(self, root: str, run: str, *, allow: Sequence[str] = (), by: str = "") -> AppendReply:
        """Have a run go on that stands still; the rules in ``allow`` are not to stop it again."""
        allowed = dump(list(allow))
        return _APPENDED[int(self.run_script("append", "resume", root, run, uuid.uuid4().hex, allowed, by))]

    def answer(self, root: str, ask_id: str, answer: str, *, by: str) -> tuple[AppendReply, str | None]:
        """Decide an ask with ``answer`` (JSON); return what came of it and the answer that stands.

        Raises InvalidArguments when it is too large.
        """
        self._check_size(f"ask {ask_id}", "answer", answer)
        reply = self.run_script("append", "answer", root, ask_id, uuid.uuid4().hex, answer, by)
        standing = reply[1].decode() if len(reply) > 1 else None
        return _APPENDED[int(reply[0])], standing

    def _check_size(self, what: str, parameter: str, value: str) -> None:
        size, most = len(value.encode()), self.most_input_bytes
        if most is not None and size > most:
            reason = (
                f"it is {size} bytes as JSON, and may have {most} (AGENTQ_SIGNAL_LIMIT): put it into a file or an "
                "object store, and send where it is"
            )
            raise InvalidArguments(step=what, parameter=parameter, reason=reason)
