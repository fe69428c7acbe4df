"""Servers as operators guard them: behind Sentinels, behind TLS, with a user of few rights."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

import redis

from tests.kit.process import ManagedProcess, clean_environment
from tests.kit.requirements import require_program
from tests.kit.server import PrivateServer, free_port, server_program
from tests.kit.waiting import wait_until

TRUSTING_MS: Final = 600_000
"""So long a server may be silent before the Sentinel takes it for dead; longer than any test lasts."""


class Replica(PrivateServer):
    """A server that copies another one until a Sentinel makes it the master."""

    def __init__(self, master: PrivateServer) -> None:
        super().__init__(tcp=True)
        self.argv += ["--replicaof", "127.0.0.1", str(master.port)]


class Sentinel(ManagedProcess):
    """One Sentinel, which decides alone, and takes a silence for a death only while a test loses its master.

    On a busy machine any server may be silent for long: a Sentinel that doubts it tells nobody of it.
    """

    ready_line = "Sentinel ID is"

    def __init__(self, master: PrivateServer) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="aqs-", dir="/tmp"))
        self.port = free_port()
        config = self.folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\n"
            "bind 127.0.0.1\n"
            f"dir {self.folder}\n"
            f"sentinel monitor chief 127.0.0.1 {master.port} 1\n"
            f"sentinel down-after-milliseconds chief {TRUSTING_MS}\n"
            "sentinel failover-timeout chief 3000\n"
        )
        super().__init__(
            [server_program(), str(config), "--sentinel"], log=self.folder / "log", env=clean_environment()
        )

    def take_for_dead_after(self, silence_ms: int) -> None:
        """Have it believe that a server is dead after such a silence, from now on."""
        with redis.Redis(port=self.port) as asked:
            asked.sentinel_set("chief", "down-after-milliseconds", silence_ms)

    def names(self) -> int:
        """Return the port of the master that it names."""
        with redis.Redis(port=self.port) as asked:
            return int(asked.sentinel_masters()["chief"]["port"])

    def stop(self) -> None:
        """End it and delete its folder."""
        self.kill_tree()
        shutil.rmtree(self.folder, ignore_errors=True)


class GuardedServer:
    """A master with a replica, and a Sentinel that watches them."""

    def __init__(self) -> None:
        self.master = PrivateServer(tcp=True)
        # It would wait five seconds for further replicas to copy it too.
        self.master.argv += ["--repl-diskless-sync-delay", "0"]
        self.replica = Replica(self.master)
        self.sentinel = Sentinel(self.master)

    @property
    def url(self) -> str:
        """The address in Celery's spelling, with the master's name."""
        return f"sentinel://127.0.0.1:{self.sentinel.port}/0?master_name=chief"

    def start(self) -> None:
        """Return when the Sentinel knows both servers, and the replica has copied the master."""
        self.master.start()
        self.replica.start()
        self.sentinel.start()
        asked = redis.Redis(port=self.sentinel.port)
        with suppress(redis.ResponseError):
            # By default it asks a master for its replicas every ten seconds; Redis 6 has no other way.
            asked.execute_command("SENTINEL", "DEBUG", "INFO-PERIOD", "200")
        wait_until(
            lambda: (
                any(each["flags"] == "slave" for each in asked.sentinel_slaves("chief"))
                and self.replica.client.info("replication")["master_link_status"] == "up"
            ),
            description="the Sentinel knows a replica that is up to date",
        )
        asked.close()

    def lose_master(self) -> None:
        """Kill the master for good; return when the Sentinel names the replica, which has taken its place."""
        self.master.kill()
        self.sentinel.take_for_dead_after(500)
        wait_until(
            lambda: (
                self.replica.client.info("replication")["role"] == "master"
                and self.sentinel.names() == self.replica.port
            ),
            description="the replica is the master",
        )
        self.sentinel.take_for_dead_after(TRUSTING_MS)

    def stop(self) -> None:
        """End all three."""
        for each in (self.sentinel, self.replica, self.master):
            each.stop()


class TlsServer(PrivateServer):
    """A server that speaks TLS alone, and asks its clients for a certificate of the same authority, and for a user."""

    FILES: Final = {"ssl_ca_certs": "ca.crt", "ssl_certfile": "server.crt", "ssl_keyfile": "server.key"}
    """What a client needs, by Celery's names, in the server's folder."""

    user = ""

    def __init__(self) -> None:
        super().__init__(tcp=True)
        make_certificates(self.folder)
        self.argv += ["--tls-port", str(self.port), "--port", "0"]
        for option, name in (("cert", "server.crt"), ("key", "server.key"), ("ca-cert", "ca.crt")):
            self.argv += [f"--tls-{option}-file", str(self.folder / name)]

    @property
    def celery_url(self) -> str:
        """The server's address in Celery's spelling."""
        query = "&".join(f"{option}={self.folder / name}" for option, name in self.FILES.items())
        return f"rediss://{self.user}localhost:{self.port}/0?ssl_cert_reqs=CERT_REQUIRED&{query}"

    def add_user(self, rights: str) -> None:
        """Let clients in under a user with these rights alone; the URLs name it from now on."""
        self.client.execute_command("ACL", "SETUSER", "worker", "on", ">se:cret", *rights.split())
        self.user = "worker:se%3Acret@"

    def refusals(self) -> list[str]:
        """Return what was refused to the user."""
        log = self.client.execute_command("ACL", "LOG")
        return [str(entry) for entry in log]


def make_certificates(folder: Path) -> None:
    """Write an authority and a certificate for localhost that it has signed."""
    openssl = require_program("openssl")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "rsa:2048", "-nodes", "-days", "2")
    run("req", "-x509", *new, "-subj", "/CN=tests", "-keyout", "ca.key", "-out", "ca.crt")
    run("req", *new[:3], "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2")
    run("x509", "-req", "-in", "server.csr", *signed, "-out", "server.crt")
