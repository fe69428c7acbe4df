"""Dead letters, and what a worker cannot run: the scripts behind them, and the list for people."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentq.core.lanes import priority_of
from agentq.core.models import DeadLetter
from agentq.store.alarm import report_condemned
from agentq.store.connection import StoreConnection
from agentq.store.refs import Holder
from agentq.store.wire import dump, moment

_LISTED = ("why", "words", "at", "q", "l", "root", "id", "nm", "d", "wl")

DeferReply = Literal["deferred", "condemned", "given up", "gone"]
_DEFERRED: dict[int, DeferReply] = {1: "deferred", 2: "condemned", 3: "given up", 0: "gone"}


@dataclass(frozen=True, slots=True)
class Claimed:
    """A condemned step in the hands of who drops it: ``holder`` is to commit its failure."""

    holder: Holder
    message: bytes


class LetterCalls(StoreConnection):
    """The scripts of dead letters, and their readers."""

    def condemn(
        self,
        worker: str,
        take: int,
        *,
        why: str,
        words: str,
        charge: Mapping[str, Any] | None = None,
        holder: Holder | None = None,
    ) -> bool:
        """Put what a worker holds among the dead letters, whole; False when it holds nothing under that number.

        ``charge``: what the attempt has used, on which ``accounts``, and how what was reserved ends (``m``).
        ``holder``: of a step that was read; asked again after a lost reply, the answer is the same.
        """
        names = (holder.root, holder.id) if holder is not None else ("", "")
        done = int(self.run_script("condemn", worker, take, why, words, dump(charge) if charge else "", *names)) == 1
        if done:
            report_condemned()
        return done

    def shelve(
        self, message: bytes | str, *, queue: str, lane: int, words: str, token: str = "", outbox_name: str = ""
    ) -> None:
        """Put a plain message that no worker holds among the dead letters, whole.

        Args:
            message: as it stood in the broker.
            queue: and ``lane``: where it is put when it is replayed.
            words: what was wrong with it.
            token: one per message; the same again makes no second letter. Empty for a fresh one.
            outbox_name: where the message stands in the outbox, which it leaves; empty when it does not.
        """
        self.run_script("shelve", token or uuid.uuid4().hex, queue, lane, message, words[:500], outbox_name)
        report_condemned()

    def defer(
        self,
        worker: str,
        take: int,
        *,
        lacks: Literal["task", "version"],
        words: str,
        pause_ms: int,
        longest_ms: int,
        nowhere: bool = False,
    ) -> DeferReply:
        """Hand back what the worker cannot run; it is offered again after a pause.

        The pause is half of the time for which it has been unserved, but within the two limits. ``condemned``: its task
        was unknown for too long, and it is a dead letter now. ``given up``: a cancelled run has been unserved for as
        long, and the worker, which holds it still, is to end it. That takes ``nowhere``: no living worker can run it.
        """
        arguments = (worker, take, lacks, words, pause_ms, longest_ms, int(nowhere))
        reply = _DEFERRED[int(self.run_script("defer", *arguments))]
        if reply == "condemned":
            report_condemned()
        return reply

    def replay(self, letter_id: str) -> Literal["replayed", "unknown", "busy"]:
        """Have a dead letter delivered again; ``busy``: somebody is dropping it."""
        replies: dict[int, Literal["replayed", "unknown", "busy"]] = {1: "replayed", 0: "unknown", -1: "busy"}
        return replies[int(self.run_script("replay", letter_id, uuid.uuid4().hex))]

    def drop_letter(self, letter_id: str, *, label: str) -> Claimed | Literal["dropped", "unknown", "busy"]:
        """Give a dead letter up: a plain message is deleted, a step is claimed for the caller, who ends it.

        The claim is good for a minute; ``leave`` with its worker's id gives it up.
        """
        worker = uuid.uuid4().hex
        reply = self.run_script("drop", letter_id, worker, label)
        state = int(reply[0])
        if state == 2:
            holder = Holder(root=reply[1].decode(), id=letter_id, worker=worker, take=int(reply[2]))
            return Claimed(holder, reply[3])
        return "dropped" if state == 1 else "unknown" if state == 0 else "busy"

    def letters(self, *, limit: int | None = None) -> list[DeadLetter]:
        """Return the dead letters, newest first; None for all."""

        def read() -> list[DeadLetter]:
            names = [name.decode() for name in self.client.zrevrange(self.keys.of("letters"), 0, (limit or 0) - 1)]
            with self.client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hmget(self.keys.of("letter", name), *_LISTED)
                    pipe.hstrlen(self.keys.of("letter", name), "m")
                replies = pipe.execute()
            found = zip(names, replies[::2], replies[1::2], strict=True)
            # One that was replayed between the two reads is gone.
            return [_letter(name, fields, size) for name, fields, size in found if fields[0] is not None]

        return self.guarded(read)

    def letter(self, letter_id: str) -> tuple[DeadLetter, bytes] | None:
        """Return a dead letter and its whole message; None when there is none under the id."""
        key = self.keys.of("letter", letter_id)
        fields = self.guarded(lambda: self.client.hmget(key, *_LISTED, "m"))
        if fields[0] is None:
            return None
        return _letter(letter_id, fields[:-1], len(fields[-1])), fields[-1]

    def count_letters(self) -> int:
        """Return how many dead letters there are."""
        return int(self.guarded(lambda: self.client.zcard(self.keys.of("letters"))))

    def count_suspects(self, queue: str) -> int:
        """Return how many steps of a queue wait to run alone, since their last attempt died; 0 in split mode."""
        return int(self.guarded(lambda: self.client.llen(self.keys.of("suspects", queue))))


def _letter(letter_id: str, fields: list[Any], size: int) -> DeadLetter:
    why, words, at, queue, lane, root, step_id, name, deaths, worker = (
        field.decode(errors="replace") if isinstance(field, bytes) else None for field in fields
    )
    return DeadLetter(
        letter_id=letter_id,
        why=why or "",
        words=words or "",
        at=moment(at),
        queue=queue or "",
        priority=priority_of(int(lane or 0)),
        bytes=size,
        root_id=root,
        step_id=step_id,
        name=name or None,
        deaths=int(deaths or 0),
        worker=worker or None,
    )


__all__ = ["Claimed", "LetterCalls"]
