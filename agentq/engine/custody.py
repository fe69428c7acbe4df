"""How a channel gets hold of messages and lets go of them: the poll cycle, delivery, and acknowledgement.

A cycle is: take what fits into the free slots; when nothing was there, wait on the queues' bells for at most a second,
then take again. The wait and the take behind it are sent together, on the poll connection, whose replies the event loop
reads: the server does the take as soon as the bell has rung, so that between the two nobody goes to and fro.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from queue import Empty
from typing import Any, Literal

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from agentq.core.errors import Unavailable
from agentq.engine.delivery import deliver
from agentq.engine.messages import HOLDER_HEADER
from agentq.engine.slots import try_settle
from agentq.store.refs import Taken, TakeReply


class QoS(kombu_redis.QoS):
    """Acknowledgement by take number; nothing is kept in ``unacked``, and nothing restored from memory."""

    restore_at_shutdown = False

    def unacknowledged(self) -> int:
        """Return how many delivered messages are not acknowledged."""
        return len(self._delivered) - len(self._dirty)

    def takes(self) -> list[int]:
        """Return the take numbers of the delivered messages that are not acknowledged."""
        return [int(tag) for tag in list(self._delivered) if tag not in self._dirty and tag.isdigit()]

    def within_prefetch(self) -> bool:
        """Tell whether the prefetch limit leaves room, whatever the slots say."""
        return bool(virtual.QoS.can_consume(self))

    def can_consume(self) -> bool:
        """Tell whether the channel may read: a reply under way always, else within limit and slots."""
        channel = self.channel
        if channel._in_poll:
            return True
        return self.within_prefetch() and bool(channel.wants())

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a delivered message; the store has it in custody already."""
        virtual.QoS.append(self, message, delivery_tag)
        if delivery_tag.isdigit() and HOLDER_HEADER not in (message.headers or {}):
            self.channel.taker.open_ended.add(int(delivery_tag))

    def ack(self, delivery_tag: str) -> None:
        """End the custody of a plain message; a step's custody ends with its commit."""
        if delivery_tag.isdigit():
            self._settle(delivery_tag, requeue=False)
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Let go of a message; with ``requeue`` it goes back to the front of its lane."""
        if delivery_tag.isdigit():
            self._settle(delivery_tag, requeue=requeue)
        virtual.QoS.ack(self, delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        """Hand back all that is not acknowledged."""
        for take in self.takes():
            self.reject(str(take), requeue=True)

    def _settle(self, delivery_tag: str, *, requeue: bool) -> None:
        message = self._delivered.get(delivery_tag)
        taker, take = self.channel.taker, int(delivery_tag)
        taker.open_ended.discard(take)
        if requeue:
            try_settle(taker, take, "requeue")
        elif message is not None and HOLDER_HEADER in (message.headers or {}):
            taker.forget(take)
        else:
            try_settle(taker, take, "drop")


class Reader:
    """The poll cycle of one channel."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.stage: Literal["take", "wait"] = "wait"
        self._take_follows = False
        self._asked = 0
        self._asked_of: set[str] = set()
        self._asked_idle = False
        self._ran_dry: set[str] = set()
        self._heard: set[str] = set()

    @property
    def is_taking(self) -> bool:
        """Whether a take is under way, be it behind a wait."""
        return self.stage == "take" or self._take_follows

    def start(self) -> None:
        """Send the next command on the poll connection."""
        channel = self.channel
        kept, unkept = channel.queues_by_custody()
        credit = channel.credit() if kept else 0
        if credit > 0 and self._ran_dry != set(kept) and self._may_take():
            self.stage = "take"
            channel.begin_poll(self._take(kept, credit))
        elif unkept or credit > 0:
            self._send_wait(kept if credit > 0 else [], unkept)

    def hear_of(self, queue: str) -> None:
        """End a wait that does not hear of ``queue``: its messages would lie there until the wait ends by itself."""
        if self.channel._in_poll and self.stage == "wait" and queue not in self._heard:
            self.channel.cut_wait()

    def read(self) -> bool:
        """Read the reply that has arrived; True when something was delivered, else raises Empty."""
        return self._read_take() if self.stage == "take" else self._read_wait()

    def close(self) -> None:
        """Finish what is under way when the channel closes.

        A take's messages are in custody and have no handler any more, so they go back. A bell that rings into the void
        is heard by the others within a second; what a take behind it may have taken is asked for again by its token, or
        handed back when the worker leaves.
        """
        channel = self.channel
        if not channel._in_poll:
            return
        if self.stage == "take":
            try:
                reply = self._receive_take()
            except (*channel.connection_errors, channel.ResponseError):
                return  # The token stays: the worker's next channel asks for the same reply again.
            finally:
                channel._in_poll = None
            channel.taker.abandon(taken.take for taken in reply.taken)
        elif not channel._unkept:
            channel._in_poll = None

    def _may_take(self) -> bool:
        taker = self.channel.taker
        if not taker.begin(self.channel):
            return False
        self.channel.stored(taker.reconcile)
        return True

    def _take(self, queues: list[str], credit: int) -> tuple[Any, ...]:
        channel = self.channel
        taker = channel.taker
        self._asked, self._asked_of, self._asked_idle = credit, set(queues), taker.idle
        command: tuple[Any, ...] = channel.store.take_command(
            taker.id,
            taker.token(),
            slots=credit,
            label=taker.label,
            queues=queues,
            low_share=channel.low_share,
            floor=taker.floor,
            idle=self._asked_idle,
        )
        return command

    def _send_wait(self, kept: list[str], unkept: list[str]) -> None:
        channel = self.channel
        keys = [channel.store.keys.bell(queue) for queue in kept]
        keys += [channel._q_for_pri(queue, step) for step in channel.priority_steps for queue in unkept]
        self.stage, self._heard = "wait", {*kept, *unkept}
        wait = ("BRPOP", *keys, channel.brpop_timeout or 0)
        credit = channel.credit() if kept else 0
        self._ran_dry = set()
        self._take_follows = credit > 0 and self._may_take()
        if self._take_follows:
            channel.begin_poll(wait, self._take(kept, credit))
        else:
            channel.begin_poll(wait)

    def _receive(self, command: str) -> Any:
        channel = self.channel
        connection = channel.client.connection
        try:
            return channel.client.parse_response(connection, command)
        except channel.connection_errors:
            # The next cycle connects anew, and asks for a lost take's reply by its token.
            connection.disconnect()
            raise

    def _receive_take(self) -> TakeReply:
        channel = self.channel
        reply: TakeReply = channel.store.parse_take(self._receive("FCALL"))
        channel.taker.answered(reply)
        # Where they have run dry, whatever came since has rung a bell, which is still to be heard. A take that was sent
        # while something ran was given no suspect, and its wait has swallowed the bell that was rung for one.
        ran_dry = len(reply.taken) < self._asked and (self._asked_idle or not channel.taker.idle)
        self._ran_dry = self._asked_of if ran_dry else set()
        return reply

    def _read_take(self) -> bool:
        channel = self.channel
        kept, unkept = channel.queues_by_custody()
        try:
            reply = self._receive_take()
        except channel.ResponseError as error:
            channel.end_poll()
            if channel.store.scripts.is_unknown(error):
                # A restarted server has forgotten the scripts; nothing of the take has run.
                channel.stored(channel.store.load_scripts)
                raise Empty() from None
            kombu_redis.warning("agentq: the server refused a take, trying again in a second: %s", error)
            self._send_wait(kept, unkept)
            raise Empty() from None
        except BaseException:
            channel._in_poll = None
            raise
        channel.end_poll()
        if reply.refused:
            channel.taker.refuse()
            raise Empty()
        if not reply.taken:
            if kept or unkept:
                self._send_wait(kept, unkept)
            raise Empty()
        return self._deliver(reply.taken)

    def _deliver(self, found: Sequence[Taken]) -> bool:
        failures = [deliver(self.channel, taken) for taken in found]
        for failure in failures:
            if failure is not None:
                raise failure
        return True

    def _read_wait(self) -> bool:
        channel = self.channel
        try:
            found = self._receive("BRPOP")
            reply = self._read_following() if self._take_follows else None
        except channel.ResponseError:
            # The reply of the take behind it must not pass for another command's.
            channel.client.connection.disconnect()
            raise
        finally:
            self._take_follows = False
            channel.end_poll()
        heard = bool(found) and self._hear(*found)
        if reply is None:
            if found and not heard and not channel._closing:
                # A bell. Take at once: without an event loop, the next cycle may be a caller's time-out away.
                self.start()
            return heard or self._nothing()
        if reply.refused:
            channel.taker.refuse()
        elif not reply.taken and not channel._closing:
            self.start()
        return self._deliver_wanted(reply) or heard or self._nothing()

    def _nothing(self) -> bool:
        raise Empty()

    def _hear(self, key: bytes, item: bytes) -> bool:
        """Deliver what came without custody; False for a bell."""
        channel = self.channel
        queue = bytes_to_str(key).rsplit(channel.sep, 1)[0]
        if queue not in channel._unkept.values():
            return False
        channel._queue_cycle.rotate(queue)
        channel.connection._deliver(loads(bytes_to_str(item)), queue)
        return True

    def _read_following(self) -> TakeReply | None:
        """Return the reply of the take behind a wait; None when it did not run."""
        channel = self.channel
        try:
            return self._receive_take()
        except channel.ResponseError as error:
            if channel.store.scripts.is_unknown(error):
                channel.stored(channel.store.load_scripts)
                return None
            kombu_redis.warning("agentq: the server refused a take, trying again soon: %s", error)
        return None

    def _deliver_wanted(self, reply: TakeReply) -> bool:
        """Deliver what may still be run: the take was sent before the wait, and slots may have been used since."""
        channel = self.channel
        taker = channel.taker
        credit = channel.credit() if not reply.rest or taker.idle else 0
        for taken in reversed(reply.taken[credit:]):
            # Without the server, the wish is kept.
            with suppress(Unavailable):
                taker.settle(taken.take, "requeue")
        return bool(reply.taken[:credit]) and self._deliver(reply.taken[:credit])
