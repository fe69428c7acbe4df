"""A unix socket in front of a server that knows scripts by name: it counts calls, and stops one where a test says.

A trap holds the connection that meets it, either before the script has run or with its reply in hand, while the test
kills whom it likes; then the connection goes on or is cut. So every point around a script can be met from outside,
without a trigger in the program under test.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.kit.resp import end_of, words_of

Moment = Literal["before", "after"]
"""Of a script's run: its call has left its caller, or its reply is on the way."""

Verdict = Literal["pass", "cut"]
"""What becomes of the held connection: it goes on, or hangs up without the call or the reply."""

_CHUNK = 1 << 18
_LISTENING = {b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE", b"MONITOR"}
"""After one of these, replies come unasked."""


@dataclass(frozen=True, slots=True)
class Call:
    """One command on its way.

    Attributes:
        name: the script's name, else the command's in capitals.
        words: the command; a script's arguments begin at the fourth.
        pid: of the process that opened the connection.
    """

    name: str
    words: list[bytes]
    pid: int

    @property
    def arguments(self) -> list[bytes]:
        """What a script is given."""
        return self.words[3:]


@dataclass(eq=False)
class Trap:
    """Waits for a call; the first that fits springs it, and no other does."""

    names: frozenset[str]
    moment: Moment
    spring: Callable[[Call], Verdict]
    fits: Callable[[Call], bool]
    done: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Serves ``path`` in front of the server at ``target``, from a thread of its own.

    Attributes:
        counts: how often each (process, call) was answered.
        on_reply: told of every call with its reply, at the moment at which the server has given it.
    """

    def __init__(self, target: Path, path: Path, scripts: dict[str, str]) -> None:
        self.path = path
        self.counts: Counter[tuple[int, str]] = Counter()
        self.on_reply: Callable[[Call, bytes], None] = lambda _call, _reply: None
        self._target = str(target)
        self._names: dict[bytes, str] = {}
        self.learn(scripts)
        self._traps: list[Trap] = []
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._ready = threading.Event()

    @property
    def celery_url(self) -> str:
        """The proxy's address in Celery's spelling."""
        return f"redis+socket://{self.path}"

    def start(self) -> None:
        """Accept connections."""
        self._thread.start()
        assert self._ready.wait(10)

    def close(self) -> None:
        """Hang up on everybody and end."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self.path.unlink(missing_ok=True)

    def learn(self, scripts: dict[str, str]) -> None:
        """Know scripts, name to digest, from now on."""
        self._names.update({digest.encode(): name for name, digest in scripts.items()})

    def trap(
        self,
        names: Iterable[str],
        moment: Moment,
        spring: Callable[[Call], Verdict],
        fits: Callable[[Call], bool] = lambda _: True,
    ) -> Trap:
        """Set a trap for the next call of one of ``names`` that fits; ``spring`` runs in a thread, and decides."""
        made = Trap(frozenset(names), moment, spring, fits)
        with self._lock:
            self._traps.append(made)
        return made

    def disarm(self, trap: Trap) -> bool:
        """Take a trap away; False when something is in it already."""
        with self._lock:
            if trap in self._traps:
                self._traps.remove(trap)
                return True
        return False

    def cut(self, pids: set[int]) -> int:
        """Hang up on these processes; returns on how many connections."""
        found = [link for link in list(self._links) if link.pid in pids]
        for link in found:
            self._loop.call_soon_threadsafe(link.cut)
        return len(found)

    def name_of(self, words: list[bytes]) -> str:
        """Return what a command is called here."""
        if words[0] == b"EVALSHA":
            return self._names.get(words[1], "EVALSHA")
        if words[0] == b"FCALL":
            return self._names.get(words[1].rpartition(b"_")[2], "FCALL")
        return words[0].decode(errors="replace").upper()

    def caught(self, call: Call, moment: Moment) -> Trap | None:
        """Return the trap that a call falls into; each catches one."""
        if not self._traps:
            return None
        with self._lock:
            for trap in self._traps:
                if call.name in trap.names and trap.moment == moment and trap.fits(call):
                    self._traps.remove(trap)
                    return trap
        return None

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_unix_server(self._accept, str(self.path), limit=_CHUNK))
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for link in list(self._links):
            link.cut()
        # Each ends by its hang-up; one whose trap still waits is left behind.
        tasks = asyncio.all_tasks(self._loop)
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=5))
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("socket")
        pid, _, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        try:
            back = await asyncio.open_unix_connection(self._target, limit=_CHUNK)
        except OSError:
            # As from a server that is away.
            writer.transport.abort()
            return
        link = _Link(self, pid, (reader, writer), back)
        self._links.add(link)
        try:
            await link.serve()
        finally:
            self._links.discard(link)


class _Link:
    """One connection: commands in order, and their replies."""

    def __init__(
        self,
        proxy: Proxy,
        pid: int,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.proxy = proxy
        self.pid = pid
        self._client = client
        self._server = server
        self._waiting: deque[Call] = deque()
        self._listens = False

    async def serve(self) -> None:
        """Carry both ways until one side hangs up."""
        ways = [asyncio.ensure_future(self._commands()), asyncio.ensure_future(self._replies())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.cut()
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def cut(self) -> None:
        """Hang up on both sides."""
        for _, writer in (self._client, self._server):
            writer.transport.abort()

    async def _commands(self) -> None:
        reader, writer = self._client[0], self._server[1]
        buffer = bytearray()
        while piece := await reader.read(_CHUNK):
            buffer += piece
            while buffer and (end := end_of(buffer)) is not None:
                whole = bytes(buffer[:end])
                del buffer[:end]
                if not await self._asked(whole):
                    return
                writer.write(whole)
            await writer.drain()

    async def _asked(self, command: bytes) -> bool:
        words = words_of(command)
        call = Call(self.proxy.name_of(words), words, self.pid)
        if words[0].upper() in _LISTENING:
            self._listens = True
        if await self._sprung(call, "before"):
            return False
        self._waiting.append(call)
        return True

    async def _replies(self) -> None:
        reader, writer = self._server[0], self._client[1]
        buffer = bytearray()
        while piece := await reader.read(_CHUNK):
            buffer += piece
            if self._listens:
                writer.write(bytes(buffer))
                buffer.clear()
            while buffer and (end := end_of(buffer)) is not None:
                whole = bytes(buffer[:end])
                del buffer[:end]
                if not await self._answered(whole):
                    return
                writer.write(whole)
            await writer.drain()

    async def _answered(self, reply: bytes) -> bool:
        # A push (RESP 3) answers nothing that was asked.
        if not self._waiting or reply.startswith(b">"):
            return True
        call = self._waiting.popleft()
        self.proxy.counts[(self.pid, call.name)] += 1
        self.proxy.on_reply(call, reply)
        return not await self._sprung(call, "after")

    async def _sprung(self, call: Call, moment: Moment) -> bool:
        """Hold a call that falls into a trap; returns whether the connection is to be cut."""
        trap = self.proxy.caught(call, moment)
        if trap is None:
            return False
        return await asyncio.to_thread(_spring, trap, call) == "cut"


def _spring(trap: Trap, call: Call) -> Verdict:
    try:
        return trap.spring(call)
    finally:
        # Here, since the connection of a process that was killed ends before its trap does.
        trap.done.set()
