"""Starts the private server of a state folder, and ends it when its last user is gone.

A program of its own (``python -I -S caretaker.py FOLDER BINARY LOCK_FD``) and not part of a user's process:
a user may be killed, fork or hold many threads, while this one is small and does nothing else. It may import
the standard library alone, and must not know agentq's settings, keys or errors: it answers with one JSON
document.

Four files of the folder are locks (``flock``), so the kernel drops them however their holder ends:

=============  =====================================================================================
``start``      held while somebody looks whether the server runs, or starts it; passed to this program
``users``      shared by each process that uses the server; exclusive for the caretaker who ends it
``alive``      inherited by the server: locked means that *this folder's* server lives, whatever a
               pid file or a socket's file says
``caretaker``  held by the one caretaker
=============  =====================================================================================
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

START, USERS, ALIVE, CARETAKER = "start.lock", "users.lock", "alive.lock", "caretaker.lock"
SOCKET, PID, LOG, ADDRESS, STORAGE = "sock", "server.pid", "server.log", "address.json", "storage"

LONGEST_SOCKET_BYTES = 103
"""macOS allows 104 bytes with the final zero, Linux 108: one number, so that a folder is alike on both."""

START_S = 20.0
"""A server that has said nothing for so long will not: an empty one answers in about 0.05 s."""
LOADING_S = 120.0
"""How long a server may read its append-only file; at some 100 MB/s far beyond a private one's size."""
END_S = 20.0
"""A server asked to end writes its last second to disk; after so long it hangs, and is killed."""
LOG_BYTES = 1_000_000
_POLL_S = 0.02


class Place(NamedTuple):
    """Where the server listens: on the folder's socket, or on a port of the loopback address by password."""

    port: int = 0
    password: str = ""


class StartError(Exception):
    """The server cannot be started, in words for the user."""


def open_lock(folder: Path, name: str) -> int:
    """Open a lock's file, not yet locked; closed again in every program that this process executes."""
    return os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock the open file if nobody else's lock is in the way, and say whether it is locked now."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_place(folder: Path) -> Place | None:
    """Return where the server listens, or did last; None when the folder has had none."""
    try:
        return Place(**json.loads((folder / ADDRESS).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return None  # cut off by a crash or a full disk: the next start writes it anew


def ask(folder: Path, place: Place, *, timeout_s: float = 2.0) -> str:
    """Return ``pong``, ``loading``, ``silent`` (connected, no answer), ``closed`` or ``stranger``."""
    family = socket.AF_INET if place.port else socket.AF_UNIX
    with socket.socket(family, socket.SOCK_STREAM) as link:
        link.settimeout(timeout_s)
        try:
            link.connect(("127.0.0.1", place.port) if place.port else str(folder / SOCKET))
        except TimeoutError:
            return "silent"
        except OSError:
            return "closed"
        greeting = f"AUTH {place.password}\r\n" if place.port else ""
        try:
            link.sendall(f"{greeting}PING\r\n".encode())
            reply = b""
            while reply.count(b"\r\n") < (2 if greeting else 1):
                part = link.recv(4096)
                if not part:
                    return "stranger"
                reply += part
        except TimeoutError:
            return "silent"
        except OSError:
            return "closed"
    if greeting and not reply.startswith((b"+OK", b"-LOADING")):
        return "stranger"  # a server without our password would answer the PING all the same
    # With a full disk Redis refuses even a PING; it lives, and who uses it hears the reason from it.
    if b"+PONG" in reply or b"-MISCONF" in reply:
        return "pong"
    return "loading" if b"LOADING" in reply else "stranger"


def main(arguments: list[str]) -> int:
    """Make the server run and a caretaker wait for its end, then print what happened as JSON."""
    folder, binary = Path(arguments[0]), arguments[1]
    os.umask(0o077)
    try:
        pid = _ensure_running(folder, binary)
    except (StartError, OSError) as error:
        print(json.dumps({"ok": False, "reason": str(error)}), flush=True)  # noqa: T201 - the program's answer
        return 1
    _leave_caretaker(folder, pid, start_lock=int(arguments[2]))
    print(json.dumps({"ok": True, "pid": pid}), flush=True)  # noqa: T201 - the program's answer
    return 0


def _ensure_running(folder: Path, binary: str) -> int:
    alive = open_lock(folder, ALIVE)
    try:
        deadline = time.monotonic() + START_S
        while not try_lock(alive):
            # It lives. It may be starting, or have been killed while a child of its own rewrites the file.
            place = read_place(folder) or Place()
            state = ask(folder, place)
            if state == "pong":
                return _read_pid(folder)
            if time.monotonic() > deadline + (LOADING_S if state == "loading" else 0):
                pid = _read_pid(folder)
                raise StartError(f"its process {pid} lives but does not answer ({state}): kill {pid}, then try again")
            time.sleep(_POLL_S)
        return _start(folder, binary, alive)
    finally:
        os.close(alive)


def _start(folder: Path, binary: str, alive: int) -> int:
    (folder / SOCKET).unlink(missing_ok=True)  # the holder of the lock knows that nobody listens there
    (folder / STORAGE).mkdir(mode=0o700, exist_ok=True)
    log = folder / LOG
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(folder / f"{LOG}.1")
    last = ""
    for place in _places(folder):
        _write(folder / ADDRESS, json.dumps(place._asdict()))
        said_before = log.stat().st_size if log.exists() else 0
        process = _spawn(folder, binary, place, alive)
        _write(folder / PID, f"{process.pid}\n")
        if _wait_until_it_serves(folder, place, process):
            return process.pid
        with log.open("rb") as lines:
            lines.seek(said_before)
            last = lines.read()[-2000:].decode(errors="replace").strip()
        taken = "ddress already in use" in last
        if not taken:
            break
    raise StartError(f"{binary} ended at once. Its log, {log}, ends with:\n{_last_lines(last)}")


def _places(folder: Path) -> list[Place]:
    """Return the places to try in turn: the socket if it can be, else ports of the loopback address."""
    if _socket_fits(folder):
        return [Place()]
    # The last port and password again, so that a client which outlived the server finds it where it was.
    before = read_place(folder)
    password = before.password if before is not None and before.password else secrets.token_urlsafe(32)
    ports = [before.port] if before is not None and before.port else []
    return [Place(port, password) for port in [*ports, *(_free_port() for _ in range(5))]]


def _socket_fits(folder: Path) -> bool:
    path = folder / SOCKET
    try:
        if len(str(path).encode()) > LONGEST_SOCKET_BYTES:
            return False
    except UnicodeEncodeError:
        return False  # bytes that are no text would not survive in a URL
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(str(path))
        except OSError:
            return False  # some file systems, such as a mounted FAT or a shared folder, hold no sockets
    path.unlink(missing_ok=True)
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _spawn(folder: Path, binary: str, place: Place, alive: int) -> subprocess.Popen[bytes]:
    # The configuration goes through the standard input: a command line shows a password to everybody.
    with (folder / LOG).open("ab") as log:
        process = subprocess.Popen(
            [binary, "-"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=folder / STORAGE,
            # Redis 7.2 and Valkey refuse to start under a locale that is named but not installed.
            env={"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)},
            pass_fds=(alive,),
            start_new_session=True,
        )
    assert process.stdin is not None
    try:
        process.stdin.write(_configuration(folder, place).encode())
        process.stdin.close()
    except BrokenPipeError:
        pass  # it has ended already; its log says why
    return process


def _configuration(folder: Path, place: Place) -> str:
    lines = [
        "daemonize no",
        "protected-mode yes",
        "bind 127.0.0.1",
        f"port {place.port}",
        "databases 16",
        "maxmemory-policy noeviction",
        'save ""',
        "appendonly yes",
        "appendfsync everysec",
        # Commands alone, no snapshot in front of them: Redis cannot read Valkey's snapshots, nor an old
        # server a new one's, and the next start may well find another server on the path.
        "aof-use-rdb-preamble no",
        "aof-load-truncated yes",
    ]
    if place.port:
        lines.append(f"requirepass {place.password}")
    else:
        lines += [f"unixsocket {_quoted(folder / SOCKET)}", "unixsocketperm 700"]
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    plain = bytes(range(0x20, 0x7F)).translate(None, b'"\\')
    return '"' + "".join(chr(b) if b in plain else f"\\x{b:02x}" for b in os.fsencode(path)) + '"'


def _wait_until_it_serves(folder: Path, place: Place, process: subprocess.Popen[bytes]) -> bool:
    """Return True once it answers, False when it has ended; raises when it does neither in time."""
    started = time.monotonic()
    while process.poll() is None:
        state = ask(folder, place)
        if state == "pong":
            return True
        if time.monotonic() - started > (LOADING_S if state == "loading" else START_S):
            process.kill()
            process.wait()
            raise StartError(f"it did not answer within {time.monotonic() - started:.0f} s ({state})")
        time.sleep(_POLL_S)
    return False


def _last_lines(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines()[-6:])


def _write(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner alone: a crash leaves the old or the new one, whole."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def _read_pid(folder: Path) -> int:
    try:
        return int((folder / PID).read_text())
    except (OSError, ValueError):
        return 0


def _leave_caretaker(folder: Path, server: int, *, start_lock: int) -> None:
    """Return in the first process; a second one, of which nobody is the parent, waits for the last user."""
    caretaker = open_lock(folder, CARETAKER)
    if not try_lock(caretaker):
        os.close(caretaker)
        return
    users, alive = open_lock(folder, USERS), open_lock(folder, ALIVE)
    where = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if os.fork():
        return
    os.setsid()
    os.close(start_lock)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.chdir("/")
    fcntl.flock(users, fcntl.LOCK_EX)
    _end_server(folder, where, alive, server)
    # This order: a new user who still found the caretaker's lock held would start a server with no caretaker.
    os.close(caretaker)
    os.close(users)
    os._exit(0)


def _end_server(folder: Path, where: int, alive: int, server: int) -> None:
    """End the server whose lock ``alive`` is, found through the folder's descriptor even after ``rm -r``."""
    try:
        descriptor = os.open(PID, os.O_RDONLY, dir_fd=where)
        with os.fdopen(descriptor) as file:
            server = int(file.read())  # another one than at first if that one died and was started again
    except (OSError, ValueError):
        pass  # the folder is gone or cut: the process known from the start is the best guess
    # A server that ends by itself deletes its socket by name. In a folder made anew after rm -r that name is
    # another server's, so the old one, whose data are gone, may not end by itself.
    gently = [signal.SIGTERM] if _is_at(folder, where) else []
    for number in (*gently, signal.SIGKILL):
        if try_lock(alive) or server <= 0:
            return
        try:
            os.kill(server, number)
        except OSError:
            return
        deadline = time.monotonic() + END_S
        while not try_lock(alive) and time.monotonic() < deadline:
            time.sleep(_POLL_S)


def _is_at(folder: Path, where: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(where))
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
