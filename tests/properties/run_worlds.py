"""Small worlds for the search: an agent's join of two members, and its turns with their inputs."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass, field

from agentq.core.errors import CalledOff, StaleHolder
from agentq.store.refs import Arrival, GoOn, Holder, Join, LogPlace
from tests.properties.worlds import ROOT, Move, Workers
from tests.store.bench import Bench, Got


@dataclass
class JoinWorld(Workers):
    """An agent that parks on a fan-out of two; ``need`` as in a join."""

    need: int | None = None
    repeats: int = 1
    succeeded: dict[int, bool] = field(default_factory=dict)

    def begin(self, bench: Bench) -> None:
        """Fan out, and park."""
        super().begin(bench)
        bench.worker("w0")
        run = bench.run_agent(ROOT, worker="w0")
        members = [bench.step(f"m{n}", root=ROOT, parent=ROOT, join=(ROOT, "map"), index=n) for n in range(2)]
        join = Join(root=ROOT, id="map", size=2, need=self.need, parent=ROOT)
        seen = 1 + len(bench.store.send(run, token="s", seen=1, joins=[join], offers=members))
        assert bench.store.park(run, seen=seen, due_ms=None, waits=[])
        bench.store.leave("w0")

    def moves(self) -> list[Move]:
        """Add that a member fails."""
        moves = super().moves()
        moves += [("fail", at) for at, attempt in enumerate(self.attempts) if attempt.state == "running"]
        if self.repeats:
            moves += [("arrive", step) for step in self.ended]
        return moves

    def known(self) -> Hashable:
        """Add how the members ended."""
        return super().known(), tuple(sorted(self.succeeded.items())), self.repeats

    def _begun(self, bench: Bench, got: Got) -> None:
        if got.holder.id == ROOT:
            # The agent's turn is not what this world is about: what it holds is seen in its record.
            return
        super()._begun(bench, got)

    def _finish(self, bench: Bench, got: Got, *, status: str = "SUCCESS") -> None:
        try:
            super()._finish(bench, got, status=status)
        except CalledOff:
            # Enough have arrived, and nobody wants the rest: an attempt that hears so ends as revoked.
            assert self.need is not None
            assert self._released(), "a member was called off before the join was released"
            super()._finish(bench, got, status="REVOKED")

    def _released(self) -> bool:
        oks = sum(self.succeeded.get(at, True) for at in self.ended.values())
        return len(self.ended) == 2 or (self.need is not None and oks >= self.need)

    def fail(self, bench: Bench, at: int) -> None:
        """Commit a failure."""
        attempt = self.attempts[at]
        owns = self._owns(bench, attempt.got)
        try:
            self._finish(bench, attempt.got, status="FAILURE")
        except StaleHolder:
            assert not owns
        else:
            assert owns
            self.ended[attempt.got.holder.id] = at
            self.succeeded[at] = False
        attempt.state = "over"

    def arrive(self, bench: Bench, step: str) -> None:
        """Say once more that a member has ended."""
        self.repeats -= 1
        succeeded = self.succeeded.get(self.ended[step], True)
        bench.store.arrive([Arrival(root=ROOT, id="map", index=int(step[1:]), succeeded=succeeded)])

    def check(self, bench: Bench) -> None:
        """Check that the join is released once, exactly when its members say so, and that the agent is woken then."""
        super().check(bench)
        released = self._released()
        kinds = bench.kinds(ROOT)
        assert kinds.count("joined") == int(released), f"{kinds} after {self.ended}"
        assert (bench.state(ROOT) != "p") == released


@dataclass
class TurnWorld(Workers):
    """An agent's turns: they send, look and park, while signals and a step's outcome come in.

    Attributes:
        seen: by attempt of the agent, how much of the log it has seen.
        sender: which attempt has asked for the step.
        parked: what the parked agent had seen.
        signals: ids that were said; each may be said again.
    """

    sends: int = 1
    parks: int = 2
    words: int = 2
    duplicates: int = 0
    seen: dict[int, int] = field(default_factory=dict)
    parked: int | None = None
    signals: list[str] = field(default_factory=list)
    sender: int | None = None

    def begin(self, bench: Bench) -> None:
        """Start the agent; one worker has taken its first turn."""
        super().begin(bench)
        bench.store.offer([bench.agent(ROOT)])
        self.takes += 1
        self.take(bench, "w1")

    def moves(self) -> list[Move]:
        """Add a turn's moves, and people's."""
        moves = [move for move in super().moves() if not self._ends_agent(move)]
        for at in self.seen:
            if self.attempts[at].state == "over":
                continue
            # A later turn finds the ask in the log, and does not make it again.
            if self.sends and self.sender in (None, at):
                moves.append(("send", at, False))
                if self.lost:
                    moves.append(("send", at, True))
            if self.parks:
                # After a look at the log, or with what was seen when the turn last sent.
                moves += [("park", at, False, True), ("park", at, False, False)]
                if self.lost:
                    moves.append(("park", at, True, True))
        if self.words:
            moves.append(("signal", f"i{len(self.signals)}"))
            if self.signals:
                moves.append(("signal", self.signals[0]))
        return moves

    def _ends_agent(self, move: Move) -> bool:
        return move[0] in ("commit", "commit_lost") and move[1] in self.seen

    def known(self) -> Hashable:
        """Add what turns and people know."""
        turns = tuple(sorted(self.seen.items()))
        return super().known(), self.sends, self.parks, self.words, turns, self.parked, tuple(self.signals), self.sender

    def _begun(self, bench: Bench, got: Got) -> None:
        super()._begun(bench, got)
        if got.holder.id == ROOT:
            self.seen[len(self.attempts) - 1] = len(bench.log(ROOT))
            self.parked = None

    def _finish(self, bench: Bench, got: Got, *, status: str = "SUCCESS") -> None:
        bench.finish(
            got.holder, status=status, entry=json.dumps({"k": "result", "id": got.holder.id, "s": "ok", "v": 1})
        )

    def send(self, bench: Bench, at: int, lost: bool) -> None:
        """Ask for a step; when the reply is lost, the same is sent again later."""
        self.lost -= lost
        self.sends -= not lost
        got = self.attempts[at].got
        owns = self._owns(bench, got)
        child = bench.step("c", root=ROOT, parent=ROOT, ask="c")
        ask = json.dumps({"k": "ask", "id": "c"})
        try:
            tail = bench.store.send(got.holder, token=f"send {at}", seen=self.seen[at], asks=[ask], offers=[child])
        except StaleHolder:
            assert not owns, f"{got.holder} owns the run and may not send"
            self.attempts[at].state = "over"
            return
        assert owns, f"{got.holder} sends and owns nothing"
        self.sender = at
        if not lost:
            self.seen[at] += len(tail)

    def park(self, bench: Bench, at: int, lost: bool, looks: bool) -> None:
        """Give the worker back; when the reply is lost, the same is asked for again later."""
        self.lost -= lost
        self.parks -= not lost
        got = self.attempts[at].got
        before = bench.record(ROOT)
        owns = self._owns(bench, got)
        if looks and owns:
            self.seen[at] = len(bench.log(ROOT))
        was_parked = before.get("pt", "").startswith(f"{got.holder.worker}|{got.holder.take}")
        try:
            parked = bench.store.park(got.holder, seen=self.seen[at], due_ms=None, waits=["go"])
        except StaleHolder:
            assert not owns, f"{got.holder} owns the run and may not park"
            assert not was_parked, f"{got.holder} has parked, and is told that it has not"
            self.attempts[at].state = "over"
            return
        assert owns or was_parked, f"{got.holder} parks and owns nothing"
        if parked and owns:
            self.parked = self.seen[at]
        if parked:
            # It is over for the worker only when it has heard so; until then it may ask again.
            self.attempts[at].state = "unsure" if lost else "over"

    def signal(self, bench: Bench, identity: str) -> None:
        """Say a word that is waited for."""
        self.words -= 1
        reply = bench.store.signal(ROOT, ROOT, "go", "1", signal_id=identity)
        assert reply == ("known" if identity in self.signals else "new")
        if identity not in self.signals:
            self.signals.append(identity)

    def check(self, bench: Bench) -> None:
        """Check that each input is in the log once, and that a parked agent has seen them all."""
        super().check(bench)
        log = bench.log(ROOT)
        assert [entry["i"] for entry in log if entry["k"] == "signal"] == self.signals
        kinds = [entry["k"] for entry in log]
        assert kinds.count("ask") == int(self.sender is not None)
        assert kinds.count("result") == int("c" in self.ended)
        if bench.state(ROOT) == "p":
            assert self.parked == len(log), f"the agent sleeps over {kinds[self.parked or 0 :]}"


@dataclass
class OwnStepWorld:
    """A turn whose step runs in its own slot: it is given back, and taken again, while the step commits for it.

    Attributes:
        takes, hand_backs, commits: how often each may still happen.
        turn: the attempt of the run that waits for the step in its slot.
        step: the attempt of the step.
        turns: later attempts of the run, each with how much of the log it has read at its begin.
    """

    takes: int = 2
    hand_backs: int = 2
    commits: int = 2
    turn: Holder | None = None
    step: Holder | None = None
    turns: list[tuple[Holder, int]] = field(default_factory=list)
    path: list[str] = field(default_factory=list)

    def begin(self, bench: Bench) -> None:
        """Send the step, and take it for the turn's slot."""
        for name in ("w1", "w2"):
            bench.worker(name)
        self.turn = bench.run_agent(ROOT, worker="w1")
        terms = GoOn(label="w1", seat="1", queues=("q",), names=("read",), low_share=0, floor=0, over=True)
        child = bench.step("c", root=ROOT, parent=ROOT, ask="c")
        taken = bench.store.send_and_take(self.turn, token="t", seen=1, terms=terms, offers=[child])[1]
        assert taken is not None
        self.step = Holder(root=ROOT, id="c", worker="w1", take=taken.take)

    def moves(self) -> list[Move]:
        """Return what may happen next."""
        moves: list[Move] = [("take", name) for name in ("w1", "w2") if self.takes]
        if self.hand_backs:
            moves.append(("give_back",))
        if self.commits:
            moves.append(("commit",))
        return moves

    def known(self) -> Hashable:
        """Return what is left, and who has had the turn."""
        return self.takes, self.hand_backs, self.commits, tuple(self.turns)

    def take(self, bench: Bench, worker: str) -> None:
        """Take the turn, where it waits."""
        self.takes -= 1
        for got in bench.take(worker):
            self.turns.append((got.holder, len(bench.log(ROOT))))

    def give_back(self, bench: Bench) -> None:
        """Give the turn back that was taken last."""
        self.hand_backs -= 1
        holder = self.turns[-1][0] if self.turns else self.turn
        assert holder is not None
        bench.store.requeue(holder.worker, holder.take)

    def commit(self, bench: Bench) -> None:
        """Commit the step for the first turn; the second time the reply to the first was lost."""
        self.commits -= 1
        assert self.turn is not None
        assert self.step is not None
        entry = json.dumps({"k": "result", "id": "c", "s": "ok", "v": 1})
        heard = bench.store.commit(
            self.step, hears=LogPlace(self.turn, 1), mode="done", status="SUCCESS", entry=entry
        ).heard
        assert [json.loads(line)["k"] for line in heard or ()] == ["result"]

    def check(self, bench: Bench) -> None:
        """Check that who has the turn has read of the step's end, reads of it in the commit's reply, or is rung for."""
        record = bench.record(ROOT)
        holder, read = self.turns[-1] if self.turns else (None, 0)
        if record["s"] == "h" and holder is not None and len(bench.log(ROOT)) > read:
            assert (record["w"], record["t"]) == (holder.worker, str(holder.take))
            assert bench.client.exists(bench.keys.wake(ROOT, ROOT)), f"{holder} sleeps over its step's end"
