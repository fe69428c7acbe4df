"""Small worlds for the search: what workers do with steps, and one step between two of them.

Each move is one call as some process makes it; ``…_lost`` is a call whose reply never arrives, so that its caller does
not know whether it was heard and may call again with the same token. What may happen how often is bounded, so that the
number of states is.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from agentq.core.errors import StaleHolder
from agentq.store.refs import Holder
from tests.store.bench import Bench, Got

ROOT = "run"
Move = tuple[Any, ...]


@dataclass
class Attempt:
    """A taken step in a worker's hands: ``running``, ``unsure`` (its commit was not answered) or ``over``."""

    got: Got
    state: str = "running"


@dataclass
class Workers:
    """Two workers that take, die and commit; what a dead one has taken it may still try to commit.

    Attributes:
        takes, lost, deaths, duplicates: how often these may still happen.
        pending: by worker, the token of a take whose reply was lost, and that reply.
    """

    takes: int = 3
    lost: int = 1
    deaths: int = 1
    duplicates: int = 1
    path: list[str] = field(default_factory=list)
    alive: list[str] = field(default_factory=lambda: ["w1", "w2"])
    pending: dict[str, tuple[str, tuple[Holder, ...]]] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    ended: dict[str, int] = field(default_factory=dict)
    taken: int = 0

    def begin(self, bench: Bench) -> None:
        """Enroll the workers."""
        for worker in self.alive:
            bench.worker(worker)

    def moves(self) -> list[Move]:
        """Return what workers may do next."""
        moves: list[Move] = []
        # Before the first take one worker is as good as the other.
        for worker in self.alive[: 2 if self.taken else 1]:
            if worker in self.pending or self.takes:
                moves.append(("take", worker))
            if self.takes and self.lost and worker not in self.pending:
                moves.append(("take_lost", worker))
            if self.deaths:
                moves.append(("die", worker))
        for at, attempt in enumerate(self.attempts):
            if attempt.state != "over":
                moves.append(("commit", at))
            if attempt.state == "running" and self.lost:
                moves.append(("commit_lost", at))
            if self.duplicates:
                moves.append(("duplicate", at))
        return moves

    def known(self) -> Hashable:
        """Return what the workers know."""
        attempts = tuple((a.got.holder, a.got.generation, a.state) for a in self.attempts)
        return (
            (self.takes, self.lost, self.deaths, self.duplicates),
            (tuple(self.alive), tuple(sorted(self.pending.items())), attempts),
            tuple(sorted(self.ended.items())),
        )

    def take(self, bench: Bench, worker: str) -> None:
        """Take one message, or ask again for what was not answered."""
        asked = self.pending.pop(worker, None)
        if asked is None:
            self.takes -= 1
        token, before = asked if asked is not None else (self._token(), None)
        taken = bench.take(worker, token=token)
        assert before in (None, tuple(got.holder for got in taken)), "the same token got another reply"
        for got in taken:
            self._begun(bench, got)

    def _begun(self, bench: Bench, got: Got) -> None:
        step = got.holder.id
        assert step not in self.ended, f"{got.holder} runs after the step has ended"
        running = [a for a in self.attempts if a.got.holder.id == step and a.state == "running"]
        beside = [a.got.holder for a in running if a.got.holder.worker in self.alive]
        assert not beside, f"{got.holder} runs beside {beside}"
        older = [a for a in self.attempts if a.got.holder.id == step]
        assert all(a.got.generation < got.generation for a in older), f"{got.holder} has an old generation"
        self.attempts.append(Attempt(got))

    def _token(self) -> str:
        self.taken += 1
        return f"t{self.taken}"

    def take_lost(self, bench: Bench, worker: str) -> None:
        """Take, and never hear what was taken."""
        self.takes -= 1
        self.lost -= 1
        token = self._token()
        self.pending[worker] = (token, tuple(got.holder for got in bench.take(worker, token=token)))

    def die(self, bench: Bench, worker: str) -> None:
        """Fall silent; the others notice, and one entry is released."""
        self.deaths -= 1
        self.alive.remove(worker)
        self.pending.pop(worker, None)
        bench.expire_lease(worker)
        bench.tick(chunk=10)
        assert bench.take_reply(worker).refused, "a dead worker takes"

    def kept_die(self, bench: Bench, worker: str) -> None:
        """Die; the keeper gives all back, and says so twice, since the first reply was lost."""
        self.deaths -= 1
        self.alive.remove(worker)
        self.pending.pop(worker, None)
        for _ in range(2):
            bench.store.leave(worker, counted=True)
        assert bench.take_reply(worker).refused, "a dead worker takes"

    def duplicate(self, bench: Bench, at: int) -> None:
        """Put a message that was taken once into its lane again, to be taken next."""
        self.duplicates -= 1
        got = self.attempts[at].got
        bench.client.rpush(bench.keys.lane(got.queue, 6), json.dumps(got.message, separators=(",", ":")))

    def commit(self, bench: Bench, at: int) -> None:
        """Commit an attempt, and hear whether it counts."""
        attempt = self.attempts[at]
        step = attempt.got.holder.id
        owns = self._owns(bench, attempt.got) or self.ended.get(step) == at
        try:
            self._finish(bench, attempt.got)
        except StaleHolder:
            assert not owns, f"{attempt.got.holder} owns its step and may not commit"
        else:
            assert owns, f"{attempt.got.holder} owns nothing and commits"
            assert self.ended.setdefault(step, at) == at, f"{step} ends twice"
        attempt.state = "over"

    def commit_lost(self, bench: Bench, at: int) -> None:
        """Commit an attempt, and hear nothing."""
        self.lost -= 1
        attempt = self.attempts[at]
        owns = self._owns(bench, attempt.got)
        try:
            self._finish(bench, attempt.got)
        except StaleHolder:
            assert not owns
        else:
            assert self.ended.setdefault(attempt.got.holder.id, at) == at, "a step ends twice"
        attempt.state = "unsure"

    def _owns(self, bench: Bench, got: Got) -> bool:
        record = bench.record(got.holder.id, got.holder.root)
        return (record["s"], record["w"], record["t"]) == ("h", got.holder.worker, str(got.holder.take))

    def _finish(self, bench: Bench, got: Got, *, status: str = "SUCCESS") -> None:
        bench.finish(got.holder, status=status)

    def check(self, bench: Bench) -> None:
        """Check that each record is in its one place, and done if and only if an attempt has ended it."""
        found = bench.look()
        assert found.misplaced(duplicates=True) == []
        for (_, step), record in found.records().items():
            assert (record["s"] == "d") == (step in self.ended), f"{step} is {record['s']} and ended by {self.ended}"


@dataclass
class StepWorld(Workers):
    """One step: taken, tried again, handed back, committed."""

    retries: int = 1
    hand_backs: int = 1

    def begin(self, bench: Bench) -> None:
        """Offer the step."""
        super().begin(bench)
        bench.store.offer([bench.step("s1", root=ROOT)])

    def moves(self) -> list[Move]:
        """Add what an attempt may do instead of its end."""
        moves = super().moves()
        for at, attempt in enumerate(self.attempts):
            if attempt.state == "running" and self.retries:
                moves.append(("again", at))
            if self.hand_backs:
                moves.append(("hand_back", at))
        if self.deaths and self.taken:
            moves += [("kept_die", worker) for worker in self.alive]
        return moves

    def known(self) -> Hashable:
        """Add what is left."""
        return super().known(), self.retries, self.hand_backs

    def again(self, bench: Bench, at: int) -> None:
        """Commit that the step is to be tried again."""
        self.retries -= 1
        attempt = self.attempts[at]
        owns = self._owns(bench, attempt.got)
        try:
            bench.again(attempt.got.holder)
        except StaleHolder:
            assert not owns
        else:
            assert owns, "a stale attempt queues its step again"
        attempt.state = "over"

    def hand_back(self, bench: Bench, at: int) -> None:
        """Hand an attempt back, also one that ended long ago."""
        self.hand_backs -= 1
        attempt = self.attempts[at]
        bench.store.requeue(attempt.got.holder.worker, attempt.got.holder.take)
        attempt.state = "over"


@dataclass
class GoingOnWorld(Workers):
    """Two steps: whoever ends one goes on, by the same commit, with the other if that still waits.

    Attributes:
        seats: of the attempts, by their place: one that was gone on with has that of the one before.
        promised: by the place of an attempt whose commit was not answered, what the answer named.
    """

    hand_backs: int = 1
    seats: dict[int, str] = field(default_factory=dict)
    promised: dict[int, Holder | None] = field(default_factory=dict)

    def begin(self, bench: Bench) -> None:
        """Offer the steps."""
        super().begin(bench)
        bench.store.offer([bench.step(name, root=ROOT) for name in ("s1", "s2")])

    def moves(self) -> list[Move]:
        """Have commits go on; add a hand-back of what a seat runs, by the attempt that its worker knows of."""
        moves = [
            ("go_on" + name.removeprefix("commit"), *rest) if "commit" in name else (name, *rest)
            for name, *rest in super().moves()
        ]
        if self.hand_backs:
            moves += [
                ("lose_child", at)
                for at, attempt in enumerate(self.attempts)
                if attempt.got.holder.worker in self.alive
            ]
        return moves

    def known(self) -> Hashable:
        """Add what is left, and what was promised."""
        return super().known(), self.hand_backs, tuple(self.seats.items()), tuple(self.promised.items())

    def go_on(self, bench: Bench, at: int) -> None:
        """Commit an attempt; hear whether it counts, and what follows."""
        attempt, following = self.attempts[at], None
        step = attempt.got.holder.id
        owns = self._owns(bench, attempt.got) or self.ended.get(step) == at
        seat = self.seats.setdefault(at, str(at))
        try:
            following = bench.go_on(attempt.got.holder, seat=seat)
        except StaleHolder:
            assert not owns, f"{attempt.got.holder} owns its step and may not commit"
        else:
            assert owns, f"{attempt.got.holder} owns nothing and commits"
            assert self.ended.setdefault(step, at) == at, f"{step} ends twice"
        attempt.state = "over"
        if at in self.promised:
            promised = self.promised.pop(at)
            kept = promised is not None and promised.worker in self.alive and self._holds(bench, promised)
            assert (following.holder if following is not None else None) == (promised if kept else None), (
                "another reply"
            )
        if following is not None:
            self._begun(bench, following)
            self.seats[len(self.attempts) - 1] = seat

    def go_on_lost(self, bench: Bench, at: int) -> None:
        """Commit an attempt, and hear nothing of what follows."""
        self.lost -= 1
        attempt = self.attempts[at]
        owns, seat = self._owns(bench, attempt.got), self.seats.setdefault(at, str(at))
        try:
            following = bench.go_on(attempt.got.holder, seat=seat)
        except StaleHolder:
            assert not owns
        else:
            assert self.ended.setdefault(attempt.got.holder.id, at) == at, "a step ends twice"
            self.promised[at] = following.holder if following is not None else None
        attempt.state = "unsure"

    def _holds(self, bench: Bench, holder: Holder) -> bool:
        record = bench.record(holder.id, holder.root)
        return (record["s"], record["w"], record["t"]) == ("h", holder.worker, str(holder.take))

    def lose_child(self, bench: Bench, at: int) -> None:
        """Have the child die that was sent this attempt; its worker hands back what it may have gone on with."""
        self.hand_backs -= 1
        holder = self.attempts[at].got.holder
        seat = self.seats.setdefault(at, str(at))
        bench.store.requeue(holder.worker, holder.take, lost=True, seat=seat)
        for other, attempt in enumerate(self.attempts):
            if self.seats.get(other) == seat:
                attempt.state = "over"
                self.promised.pop(other, None)
        left = [found for found in bench.look().records().values() if found["s"] == "h" and found["w"] == holder.worker]
        mine = {(a.got.holder.id, str(a.got.holder.take)) for a in self.attempts if a.state == "running"}
        pending = {(h.id, str(h.take)) for _, found in self.pending.values() for h in found}
        promised = {(h.id, str(h.take)) for h in self.promised.values() if h is not None}
        known = {take for _, take in mine | pending | promised}
        assert all(found["t"] in known for found in left), f"held by nobody: {left}"
