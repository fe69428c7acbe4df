"""`agentq autoscale`, `up` and `pools --watch` as people run them: real processes, a server that goes, a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import grpc
import pytest

from tests.fleet.commands import Commands, address_in, kill
from tests.kit.server import PrivateServer
from tests.kit.waiting import holds_for, wait_until
from tests.unit.fleet.test_push import call, reference


@pytest.fixture
def commands(tmp_path: Path, server: PrivateServer) -> Iterator[Callable[..., Commands]]:
    made: list[Commands] = []

    def make(**fields: object) -> Commands:
        made.append(Commands(server, tmp_path, **fields))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()


def get(address: str, path: str) -> tuple[int, str]:
    """Status and text; 0 while nobody answers."""
    try:
        with urlopen(f"http://{address}{path}", timeout=60) as reply:
            return reply.status, reply.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except URLError:
        return 0, ""


@pytest.mark.leaves(".*")
def test_a_platform_pulls_and_is_pushed_what_is_decided_also_after_the_server_was_away(
    commands: Callable[..., Commands], server: PrivateServer
) -> None:
    fleet = commands(max=5)
    fleet.send(range(9), 0.1)
    command = fleet.start("autoscale", "--driver", "pull", "--metrics", "0", "--push", "0")
    pulled = wait_until(lambda: address_in(command.log(), "served at "), description="it serves", report=command.log)
    pushed = wait_until(lambda: address_in(command.log(), "to KEDA from "), description="it pushes", report=command.log)
    wait_until(lambda: get(pulled, "/pools/naps")[0] == 200, description="it has decided", report=command.log)
    assert json.loads(get(pulled, "/pools/naps")[1])["desired"] == 5
    assert 'agentq_pool_desired_workers{pool="naps"} 5' in get(pulled, "/metrics")[1].splitlines()
    with grpc.insecure_channel(pushed) as channel:
        assert call(channel, "IsActive", reference("naps")) == b"\x08\x01"
    server.kill()
    wait_until(lambda: get(pulled, "/healthz")[0] == 503, description="it says that the server is away")
    command.wait_for_log("The workers go on as they are.")
    server.start()
    command.wait_for_log("The store is reached again.")
    wait_until(lambda: get(pulled, "/healthz")[0] == 200, description="it is well again")
    wait_until(lambda: get(pulled, "/pools/naps")[0] == 200, description="a decision is told again", report=command.log)
    assert json.loads(get(pulled, "/pools/naps")[1])["desired"] == 5
    command.send(signal.SIGINT)
    assert command.wait() == 0


@pytest.mark.long
def test_up_scales_a_pool_from_zero_and_back_and_shows_it(commands: Callable[..., Commands]) -> None:
    fleet = commands()
    up = fleet.start("up", "--no-flower", "--log-level", "WARNING")
    watch = fleet.start("pools", "--watch", "--json")
    up.wait_for_log("Ctrl-C stops all")
    assert fleet.workers() == []
    fleet.send(range(20), 0.3)
    wait_until(lambda: len(fleet.workers()) == 2, description="two workers", report=up.log)
    wait_until(lambda: fleet.each_once(range(20)), description="all steps have ended", report=up.log)
    wait_until(lambda: fleet.workers() == [], description="the pool sleeps", report=up.log)
    assert fleet.each_once(range(20))
    assert re.search(r"naps\s+│ 0 → 2 workers: ", up.log())
    looks = [json.loads(line) for line in watch.log().splitlines()]
    seen = {(look["scaled"][0]["desired"], look["scaled"][0]["load"]["ready"]) for look in looks if look["scaled"]}
    assert (2, 2) in seen
    assert max(ready for _, ready in seen) == 2
    up.send(signal.SIGINT)
    assert up.wait() == 0


@pytest.mark.long
def test_workers_and_controller_outlive_thirty_seconds_without_their_server(
    commands: Callable[..., Commands], server: PrivateServer
) -> None:
    fleet = commands(max=3, idle_to_zero="5s")
    command = fleet.start("autoscale", "--driver", "local")
    fleet.send(range(3), 45.0)
    wait_until(lambda: len(fleet.naps()) == 3, description="three steps run", report=command.log)
    workers = fleet.workers()
    assert len(workers) == 3
    server.kill()
    holds_for(
        lambda: command.running and fleet.workers() == workers,
        description="all of them live on",
        seconds=30.0,
    )
    server.start()
    back_ms = fleet.store.now_ms()
    fleet.send(range(3, 9), 0.2)
    wait_until(lambda: fleet.each_once(range(9)), description="each step has ended, once", report=command.log)
    after = [each for each in fleet.store.decision_history("naps") if each.at_ms >= back_ms]
    while_running = [each for each in after if each.load.running >= 3]
    assert all(each.desired >= 3 for each in while_running), "it did not shrink for what it could not see"
    wait_until(lambda: fleet.workers() == [], description="and it sleeps in the end", report=command.log)
    command.send(signal.SIGTERM)
    assert command.wait() == 0


@pytest.mark.long
def test_of_two_commands_one_leads_and_the_other_takes_its_workers_over(commands: Callable[..., Commands]) -> None:
    fleet = commands(min=2)
    first = fleet.start("autoscale", "--driver", "local")
    wait_until(lambda: len(fleet.store.workers()) == 2, description="two workers", report=first.log)
    workers, fence = fleet.workers(), fleet.store.leaders()["naps"].fence
    second = fleet.start("autoscale", "--driver", "local")
    second.wait_for_log("takes over when that one is gone")
    first.send(signal.SIGSTOP)
    stopped = time.monotonic()
    wait_until(lambda: fleet.leader() == str(second.pid), description="the second leads", report=second.log)
    took_s = time.monotonic() - stopped
    assert fleet.store.leaders()["naps"].fence > fence
    first.send(signal.SIGCONT)
    first.wait_for_log(f"Pool naps is led by {os.uname().nodename}:{second.pid}")
    assert fleet.workers() == workers, "nobody was started or ended by either"
    first.send(signal.SIGINT)
    assert first.wait() == 0
    assert fleet.workers() == workers, "they are the second's now"
    second.kill_main()
    third = fleet.start("autoscale", "--driver", "local")
    started = time.monotonic()
    wait_until(lambda: fleet.leader() == str(third.pid), description="a third leads", report=third.log)
    assert fleet.workers() == workers
    kill(workers[0])
    wait_until(
        lambda: len(fleet.workers()) == 2 and fleet.workers() != workers,
        description="who dies is replaced",
        report=third.log,
    )
    print(f"stopped: {took_s:.1f} s; killed: {time.monotonic() - started:.1f} s")  # noqa: T201 — figures
    third.send(signal.SIGINT)
    assert third.wait() == 0
    assert fleet.workers() == []


@pytest.mark.long
@pytest.mark.leaves(".*")
def test_a_person_sees_a_live_picture(commands: Callable[..., Commands]) -> None:
    fleet = commands()
    fleet.send(range(8), 0.5)
    command = fleet.start("autoscale", "--driver", "local")
    command.wait_for_log("workers")
    picture = screen_of(fleet, "pools", "--watch", until=lambda text: "not scaled" in text or "naps" in text)
    assert re.search(r"pool\s+waiting\s+oldest\s+busy\s+desired\s+ready\s+starting\s+draining\s+why", picture)
    assert re.search(r"naps\s+\d+", picture)
    piped = fleet.start("pools", "--watch")
    wait_until(lambda: piped.log().count("naps") >= 2, description="one picture below the other", report=piped.log)


def screen_of(fleet: Commands, *argv: str, until: Callable[[str], bool]) -> str:
    """What a command has written to a terminal of 110 columns until that is so; then it gets Ctrl-C."""
    pid, terminal = pty.fork()
    if pid == 0:
        fleet.become(*argv)
    text = ""
    try:
        deadline = time.monotonic() + 60
        while not until(text) and time.monotonic() < deadline:
            text += os.read(terminal, 65_536).decode(errors="replace")
        os.write(terminal, b"\x03")
        with_end = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(with_end[1]) == 130
    finally:
        os.close(terminal)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
