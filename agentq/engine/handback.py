"""Hands back to stock Celery what agentq holds, so that agentq can be removed and nothing is lost.

Everything that waits is gathered under the name of a worker of this module's own, whose lease gives it back if this
process dies, and then goes on as messages that a stock worker knows. What only agentq can go on with, agents' runs and
their steps, stays in the store and goes on when agentq is there again.
"""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any, Final

from celery.app.task import Context
from celery.backends.redis import RedisBackend
from celery.canvas import maybe_signature
from celery.exceptions import ChordError
from celery.result import GroupResult

from agentq.core.errors import UsageError
from agentq.engine import capture, joins
from agentq.engine.messages import HEADER, HOLDER_HEADER, PAYLOAD, unstowed
from agentq.engine.split.posting import CONFIRM_S, Outlet, Unreadable, shelve_post
from agentq.store import Store
from agentq.store.handback import LABEL, Holding, Verdict
from agentq.store.unsent import Post

LEASE_MS: Final = 60_000
_CHUNK: Final = 100
_REAP_S: Final = 15.0


@dataclass(slots=True)
class Report:
    """What was handed back, or would be.

    Attributes:
        tasks: messages of plain Celery tasks, which need no change.
        steps: steps outside agents' runs, now messages of plain tasks.
        delayed: of these, those with a time to wait for, which is their ETA now.
        chords: chords whose members meet in stock Celery's keys now.
        kept: messages of agents' runs and of internal steps, by task: they wait until agentq is there again.
        parked: runs that wait for a signal, an answer or a timer; they stay as they are.
        held: messages in the hands of consumers without a lease; they come back an hour after their last take.
    """

    tasks: int = 0
    steps: int = 0
    delayed: int = 0
    chords: int = 0
    kept: dict[str, int] = field(default_factory=dict)
    parked: int = 0
    held: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the numbers by name."""
        return asdict(self)


class Handback:
    """One handing back.

    Args:
        app: the Celery app.
        store: its store.
        queues: more queues than the app and kombu's tables know.
        lease_s: the workers' lease, after which a silent one is dead.
        outlet: to the broker, in split mode.
    """

    def __init__(
        self,
        app: Any,
        store: Store,
        *,
        queues: tuple[str, ...] = (),
        lease_s: float = 3.0,
        outlet: Outlet | None = None,
    ) -> None:
        self._app = app
        self._store = store
        self._queues = sorted({*queues, *app.amqp.queues, *store.declared_queues()} - {""})
        self._lease_s = lease_s
        self._outlet = outlet
        self._of_agent: dict[str, bool] = {}
        self._due: dict[tuple[str, str], int] = {}
        self._report = Report()

    def living(self) -> list[str]:
        """Return the labels of workers that are alive: nothing may be taken from them."""
        return [card.label for card in self._store.workers() if card.label != LABEL]

    def preview(self) -> Report:
        """Return what would be handed back, and change nothing."""
        self._note_due()
        for holding in self._store.peek(self._queues):
            self._judge(holding)
        self._report.chords = len(self._own_chords())
        self._count_rest()
        return self._report

    def perform(self) -> Report:
        """Hand everything back. Raises UsageError when a worker is alive."""
        if living := self.living():
            raise UsageError(f"Workers of agentq are alive ({', '.join(living)}): stop them first, then hand back.")
        store = self._store
        self._reap()
        worker = uuid.uuid4().hex
        store.enroll(worker, label=LABEL, queues=(), concurrency=1, lease_ms=LEASE_MS)
        for group_id in self._own_chords():
            self._convert(group_id)
            self._report.chords += 1
        store.gather(worker, self._queues, self._note_due())
        verdicts: list[Verdict] = []
        for holding in store.holdings(worker):
            verdicts.append(self._judge(holding))
            if len(verdicts) == _CHUNK:
                store.renew(worker, LEASE_MS)
                store.hand_back(worker, verdicts)
                verdicts = []
        store.hand_back(worker, verdicts)
        store.leave(worker)
        self._send_on()
        self._count_rest()
        return self._report

    def _send_on(self) -> None:
        """In split mode, return when the broker has confirmed what became its own."""
        while self._outlet is not None and self._store.outbox_length():
            posts = self._store.publish(chunk=_CHUNK, pause_ms=int(CONFIRM_S * 2000))
            self._publish(self._outlet, posts)
            if not posts:
                # A worker published it and died before it had heard of the confirmation; its turn comes again.
                sleep(0.2)
        if self._outlet is not None:
            self._outlet.close()

    def _publish(self, outlet: Outlet, posts: list[Post]) -> None:
        try:
            outlet.publish(posts)
        except Unreadable as error:
            if len(posts) == 1:
                shelve_post(self._store, posts[0], error)
                return
            for post in posts:
                self._publish(outlet, [post])
        else:
            self._store.confirm(posts)

    def _note_due(self) -> list[str]:
        due = self._store.due_steps()
        for name, at in due.items():
            root, step, _ = name.split("|")
            self._due[root, step] = at
        return list(due)

    def _reap(self) -> None:
        """Have dead workers' messages given back, as the tick of a living worker would."""
        for card in self._store.workers():
            # An earlier handing back that was killed.
            self._store.leave(card.id)
        deadline = monotonic() + self._lease_s + _REAP_S
        while self._store.has_dead_workers() and monotonic() < deadline:
            self._store.tick(int(self._lease_s * 1000))
            sleep(0.1)

    def _count_rest(self) -> None:
        self._report.parked = self._store.parked_runs()
        self._report.held = self._store.held_without_lease()

    def _own_chords(self) -> list[str]:
        store = self._store
        return [each for each in store.open_canvas_joins() if not self._is_of_agent(store.body_root(each))]

    def _is_of_agent(self, root: str) -> bool:
        if root not in self._of_agent:
            self._of_agent[root] = self._store.is_of_agent(root)
        return self._of_agent[root]

    def _judge(self, holding: Holding) -> Verdict:
        report = self._report
        if not holding.root:
            report.tasks += 1
            return Verdict(holding.take, "give", ((holding.queue, holding.lane, holding.message),))
        payload = json.loads(holding.message)
        name = payload["headers"].get("task", "")
        messages = None if self._is_agents(holding, payload["headers"]) else self._plain(holding, payload)
        if messages is None:
            report.kept[name] = report.kept.get(name, 0) + 1
            return Verdict(holding.take, "aside")
        report.steps += 1
        report.delayed += (holding.root, holding.id) in self._due
        return Verdict(holding.take, "give", tuple(messages))

    def _is_agents(self, holding: Holding, headers: dict[str, Any]) -> bool:
        ours = headers.get(HEADER) or {}
        return ours.get("k") != "s" or "pr" in ours or self._is_of_agent(holding.root)

    def _plain(self, holding: Holding, payload: dict[str, Any]) -> list[tuple[str, int, str]] | None:
        """Return a step as messages of plain tasks; None for a step that stock Celery has nothing for."""
        headers = payload["headers"]
        name = headers.get("task", "")
        try:
            if name == joins.DISPATCH_TASK:
                return self._body(holding, payload)
            if name.startswith("agentq."):
                return None
            stowed = headers[HEADER].get(PAYLOAD)
            if stowed is not None:
                arguments = self._store.payload(holding.root, stowed)
                if arguments is None:
                    return None
                payload = unstowed(payload, arguments)
                headers = payload["headers"]
            _with_results(self._app, self._store, payload)
        except ChordError:
            return None
        headers.pop(HEADER, None)
        headers.pop(HOLDER_HEADER, None)
        due_ms = self._due.get((holding.root, holding.id))
        if due_ms is not None:
            headers["eta"] = datetime.fromtimestamp(due_ms / 1000, UTC).isoformat()
        return [(holding.queue, holding.lane, json.dumps(payload))]

    def _body(self, holding: Holding, payload: dict[str, Any]) -> list[tuple[str, int, str]] | None:
        """Return the messages of a chord's body that was about to be sent; None if it is a chord itself."""
        (body, reference), _, _ = _decoded(payload)
        results = list(joins.joined(self._app, self._store, reference[joins.REFERENCE]))
        headers = payload["headers"]
        with capture.capturing() as caught:
            maybe_signature(body, app=self._app).apply_async(
                (results,), parent_id=headers.get("parent_id"), root_id=headers.get("root_id")
            )
        if caught.joins:
            return None
        messages = []
        for offer in caught.offers:
            sent = json.loads(offer.message)
            (sent.get("headers") or {}).pop(HEADER, None)
            messages.append((offer.queue, offer.lane, json.dumps(sent)))
        return messages

    def _convert(self, group_id: str) -> None:
        """Have a chord's members meet where stock Celery looks: its size, and what has returned so far."""
        store, backend = self._store, self._app.backend
        join = store.join_members(group_id, group_id)
        if join is None:
            return
        tree = json.loads(join.members)
        arrived = store.arrived_in_canvas(group_id)
        RedisBackend.apply_chord(backend, (group_id, [_result(self._app, part) for part in tree]), None)
        RedisBackend.set_chord_size(backend, group_id, join.size)
        for index, task_id in enumerate(joins.ids_of(tree)):
            if task_id in arrived:
                meta = backend.get_task_meta(task_id)
                part = Context(id=task_id, group=group_id, group_index=index, chord=None)
                RedisBackend.on_chord_part_return(backend, part, meta["status"], meta["result"])
        store.close_join(group_id)


def _result(app: Any, part: Any) -> Any:
    if isinstance(part, str):
        return app.AsyncResult(part)
    return GroupResult(uuid.uuid4().hex, [_result(app, each) for each in part], app=app)


def _decoded(payload: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(payload["body"]))


def _with_results(app: Any, store: Store, payload: dict[str, Any]) -> None:
    """Put the results of a chord's header in the place of the reference to them, if there is one."""
    if payload.get("content-type") != "application/json" or payload["properties"].get("body_encoding") != "base64":
        return
    args, kwargs, embedded = _decoded(payload)
    if not any(isinstance(value, dict) and set(value) == {joins.REFERENCE} for value in args):
        return
    whole = [
        list(joins.joined(app, store, value[joins.REFERENCE]))
        if isinstance(value, dict) and set(value) == {joins.REFERENCE}
        else value
        for value in args
    ]
    payload["body"] = base64.b64encode(json.dumps([whole, kwargs, embedded]).encode()).decode()
