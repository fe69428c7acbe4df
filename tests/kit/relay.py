"""A port in front of a broker that carries bytes both ways, and hangs up on whom a test says."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import psutil

from tests.kit.server import free_port

_CHUNK = 1 << 16


class Relay:
    """Serves a port of its own in front of ``target``, another one on loopback, from a thread of its own."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._links: dict[int, tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._ready = threading.Event()

    def start(self) -> None:
        """Accept connections."""
        self._thread.start()
        assert self._ready.wait(10)

    def close(self) -> None:
        """Hang up on everybody and end."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def cut(self, pids: set[int]) -> int:
        """Hang up on these processes; returns on how many connections."""
        ports = {port for pid in pids for port in self._ports_of(pid)}
        found = [port for port in list(self._links) if port in ports]
        for port in found:
            self._loop.call_soon_threadsafe(self._hang_up, port)
        return len(found)

    def _ports_of(self, pid: int) -> set[int]:
        """Return the local ports of a process's connections to here."""
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(pid).net_connections("tcp4")
            return {each.laddr.port for each in found if each.raddr and each.raddr.port == self.port}
        return set()

    def _hang_up(self, port: int) -> None:
        for writer in self._links.get(port, ()):
            writer.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", self.port))
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for port in list(self._links):
            self._hang_up(port)
        tasks = asyncio.all_tasks(self._loop)
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=5))
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            # As from a broker that is away.
            writer.transport.abort()
            return
        port = writer.get_extra_info("peername")[1]
        self._links[port] = (writer, forth)
        try:
            ways = [asyncio.ensure_future(_carry(reader, forth)), asyncio.ensure_future(_carry(back, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            self._hang_up(port)
            await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self._links.pop(port, None)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_CHUNK):
        writer.write(piece)
        await writer.drain()
