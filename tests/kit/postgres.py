"""A private PostgreSQL server for tests: own folder, unix socket, nothing on a port."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import sqlalchemy as sa

from tests.kit.process import ManagedProcess, clean_environment
from tests.kit.requirements import require

_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin")


def _program(name: str) -> str | None:
    found = shutil.which(name)
    if found is not None:
        return found
    for place in _PLACES:
        for folder in sorted(Path("/").glob(place[1:]), reverse=True):
            if (folder / name).exists():
                return str(folder / name)
    return None


class PostgresServer(ManagedProcess):
    """A server that only this test session knows. Without its programs the test fails in CI, else it is skipped."""

    ready_line = "ready to accept connections"

    def __init__(self) -> None:
        server, initdb = _program("postgres"), _program("initdb")
        require("PostgreSQL", present=server is not None and initdb is not None, hint="programs postgres and initdb")
        assert server is not None
        assert initdb is not None
        self._initdb = initdb
        self.folder = Path(tempfile.mkdtemp(prefix="aqp-", dir="/tmp"))
        storage = str(self.folder / "storage")
        argv = [server, "-D", storage, "-k", str(self.folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        super().__init__([*self._as_user(), *argv], log=self.folder / "server.log", env=clean_environment())

    def _as_user(self) -> list[str]:
        # The server refuses to run as root.
        if os.geteuid() != 0:
            return []
        user = pwd.getpwnam("nobody")
        os.chown(self.folder, user.pw_uid, user.pw_gid)
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def start(self) -> None:
        """Make the storage and start the server; return once it answers."""
        storage = str(self.folder / "storage")
        argv = [*self._as_user(), self._initdb, "-D", storage, "-U", "tests", "-A", "trust", "--no-sync"]
        made = subprocess.run(argv, cwd=self.folder, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        self.cwd = self.folder
        super().start()
        self.wait_ready()

    def empty_database(self) -> str:
        """Return the URL of the server's database, emptied."""
        engine = sa.create_engine(f"postgresql+psycopg://tests@/postgres?host={self.folder}")
        with engine.begin() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
        engine.dispose()
        return f"postgresql://tests@/postgres?host={self.folder}"

    def stop(self) -> None:
        """End the server and delete its folder."""
        self.kill_tree()
        shutil.rmtree(self.folder, ignore_errors=True)
