"""A private RabbitMQ for tests: own node name, ports on loopback, own home and data; nothing of it stays."""

from __future__ import annotations

import shutil
import socket
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from amqp import Connection

from tests.kit.process import ManagedProcess, clean_environment
from tests.kit.requirements import require
from tests.kit.server import free_port
from tests.kit.waiting import wait_until

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Debian's. The one on the path changes to another user first."""


def rabbitmq_program() -> str:
    """Return the server's path; fails or skips without any."""
    require("RabbitMQ", present=PROGRAM.exists(), hint="install rabbitmq-server (apt-get install rabbitmq-server)")
    return str(PROGRAM)


CONSUMER_TIMEOUT_MS = 2000


class PortMapper(ManagedProcess):
    """Erlang's name server, which RabbitMQ would else start as a daemon that stays."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        argv = [shutil.which("epmd") or "epmd", "-port", str(self.port), "-address", "127.0.0.1"]
        super().__init__(argv, log=folder / "epmd.log", env=clean_environment())

    def answers(self) -> bool:
        """Return whether it can be connected to."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class PrivateBroker(ManagedProcess):
    """A RabbitMQ that only this test session knows; its queues survive ``kill_tree`` as their kind allows."""

    ready_line = "Server startup complete"

    def __init__(self) -> None:
        program = rabbitmq_program()
        self.folder = Path(tempfile.mkdtemp(prefix="aqr-", dir="/tmp"))
        self.port = free_port()
        self._mapper = PortMapper(self.folder)
        (self.folder / "plugins").write_text("[].\n")
        # By default a consumer has half an hour to acknowledge; here two seconds, so that every test would notice.
        (self.folder / "rabbit.conf").write_text(
            f"log.console = true\nlog.console.level = info\nconsumer_timeout = {CONSUMER_TIMEOUT_MS}\n"
        )
        (self.folder / "advanced.config").write_text("[{rabbit, [{channel_tick_interval, 500}]}].\n")
        environment = {
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self._mapper.port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"aq{uuid.uuid4().hex[:8]}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbit"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+sbwt none -start_epmd false -noinput -kernel inet_dist_use_interface {127,0,0,1}"
            ),
            # Else the script runs the server as a child of its own, which a kill of these tests would leave behind.
            "RABBITMQ_ALLOW_INPUT": "1",
        }
        super().__init__([program], log=self.folder / "server.log", env=clean_environment(environment))

    @property
    def url(self) -> str:
        """The broker's address."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        """Start the broker and return once it accepts connections."""
        if not self._mapper.running:
            self._mapper.start()
            wait_until(self._mapper.answers, description="epmd answers")
        super().start()
        self.wait_ready()

    def restart(self) -> None:
        """SIGKILL the broker if it runs, and start it again on the same data."""
        self.kill_tree()
        self.start()

    def depths(self, *queues: str) -> dict[str, int]:
        """Return how many messages wait in each of the queues; those that do not exist are left out."""
        found = {}
        with Connection(f"127.0.0.1:{self.port}") as connection:
            for queue in queues:
                with suppress(connection.channel_errors):
                    found[queue] = int(connection.channel().queue_declare(queue, passive=True).message_count)
        return found

    def delete(self, *queues: str) -> int:
        """Delete queues with all that waits there, and return how many messages that was."""
        with Connection(f"127.0.0.1:{self.port}") as connection:
            return sum(int(connection.channel().queue_delete(queue)) for queue in queues)

    def stop(self) -> None:
        """End the broker and delete its folder."""
        # Nothing of it is to survive: a kill takes a tenth of the time of an orderly end.
        self.kill_tree()
        self._mapper.kill_tree()
        shutil.rmtree(self.folder, ignore_errors=True)
