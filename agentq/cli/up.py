"""`agentq up`: the server, workers of all pools and Flower, in one terminal."""

from __future__ import annotations

import importlib.util
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentq.cli.commands import ExampleCommand
from agentq.cli.output import say
from agentq.cli.processes import Company, Member, WriteLine
from agentq.cli.scaling import Rounds, live_pools, make_controller, words_of
from agentq.cli.session import Session, app_command
from agentq.cli.workers import (
    WorkerPlan,
    check_installed,
    child_environment,
    plan_workers,
    servable,
    with_devices,
    worker_argv,
)

if TYPE_CHECKING:
    from rich.console import Console

    from agentq.app import AgentQ
    from agentq.core.pools import PoolSpec
    from agentq.fleet.live_pools import LivePools

FLOWER_PORT = 5555
PORTS_TRIED = 50
TEND_SECONDS = 0.2
SERVER_CHECK_SECONDS = 2.0
COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")


@click.command(cls=ExampleCommand)
@click.option("--no-flower", is_flag=True, help="Run without Flower.")
@click.option("--port", type=click.IntRange(1, 65535), help="Flower's port; else 5555 or the next free one.")
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long steps may take to finish when all is stopped; a second Ctrl-C ends it at once.",
)
@click.option(
    "--log-level",
    default="INFO",
    show_default=True,
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
)
@app_command
def up(session: Session, no_flower: bool, port: int | None, grace: float, log_level: str) -> int:
    """Run the server, a worker for each pool, and Flower; Ctrl-C stops all.

    A pool that says max= has as many workers as its load asks for, as by `agentq autoscale`. What dies is started
    again, after a pause that grows while it keeps dying.

    Example:
      agentq up
      agentq up --no-flower --log-level WARNING
    """
    from agentq.console.words import open_console

    app = session.app
    console = open_console()
    server = app.server_words()
    here, lacking = servable(app, app.pools)
    for words in lacking:
        say(words)
    pools = live_pools(session, (), say, without=set(app.pools) - set(here))
    scaled = pools()
    plans = plan_workers(with_devices(app, here), [name for name in here if name not in scaled])
    for plan in plans:
        check_installed(plan)
    with_flower = not no_flower and importlib.util.find_spec("flower") is not None
    members = worker_members(session, plans, log_level=log_level, events=with_flower)
    url = None
    if with_flower:
        chosen = port if port is not None else free_port(FLOWER_PORT)
        url = f"http://127.0.0.1:{chosen}"
        members.append(flower_member(session, chosen))
    elif not no_flower:
        say("Flower is not installed, so none is started: pip install flower.")
    _print_table(console, server, plans, scaled, url)
    write_line = _LineWriter(console, [*(member.name for member in members), *scaled])
    hurry = threading.Event()
    scaling = None
    if scaled:
        scaling = _Scaling(session, pools, write_line, log_level=log_level, grace_s=grace, hurry=hurry)
    return _run(app, members, write_line, scaling, grace=timedelta(seconds=grace), hurry=hurry)


def worker_members(session: Session, plans: Sequence[WorkerPlan], *, log_level: str, events: bool) -> list[Member]:
    """One child process for each planned worker."""
    env, spec = child_environment(session.source), session.celery_spec
    return [
        Member(plan.name, partial(worker_argv, plan, spec, log_level=log_level, events=events), env) for plan in plans
    ]


def flower_member(session: Session, port: int) -> Member:
    """Flower, on the loopback address only, with agentq's columns."""
    package = importlib.util.find_spec("agentq.flower")
    assert package is not None
    assert package.origin is not None
    conf = Path(package.origin).with_name("config.py")
    argv = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        session.celery_spec,
        "flower",
        "--address=127.0.0.1",
        f"--port={port}",
        f"--conf={conf}",
        # Its own start says what stands in our table, and that workers do not answer yet.
        "--logging=error",
    ]
    return Member("flower", lambda: argv, child_environment(session.source))


def free_port(first: int) -> int:
    """The first port from `first` on that nobody listens on at the loopback address."""
    for port in range(first, first + PORTS_TRIED):
        with closing(socket.socket()) as probe:
            # As the listener will set it: without it a port in TIME_WAIT would look taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return first


def _print_table(
    console: Console, server: str, plans: Sequence[WorkerPlan], scaled: Mapping[str, PoolSpec], url: str | None
) -> None:
    from agentq.console.tables import listing

    rows: list[tuple[object, ...]] = [("server", server)]
    rows += [(plan.name, f"worker, {plan.kind}, {plan.concurrency} slots") for plan in plans]
    rows += [(name, f"workers, {spec.kind}, {spec.min} to {spec.max} by its load") for name, spec in scaled.items()]
    if url is not None:
        rows.append(("flower", url))
    console.print(listing(("what", "where"), rows, fold=("where",)))
    console.print("Ctrl-C stops all.\n", style="dim")


def _run(
    app: AgentQ,
    members: Sequence[Member],
    write_line: _LineWriter,
    scaling: _Scaling | None,
    *,
    grace: timedelta,
    hurry: threading.Event,
) -> int:
    from agentq.core.policy import decide_restart_wait

    company = Company(members, write_line=write_line, decide_wait=decide_restart_wait)
    stopping = threading.Event()

    def on_signal(_number: int, _frame: object) -> None:
        (hurry if stopping.is_set() else stopping).set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        company.start()
        server = _ServerWatch(app, write_line)
        while not stopping.wait(TEND_SECONDS):
            company.tend()
            server.look()
            if scaling is not None:
                scaling.tend()
        say("Stopping: steps that run may finish; Ctrl-C again ends them at once.")
    finally:
        if scaling is not None:
            company.ask()
            scaling.stop()
        company.stop(grace=grace, hurry=hurry)
        for number, handler in before.items():
            signal.signal(number, handler)
    say("All stopped.")
    return 0


class _Scaling:
    """The pools that have as many workers as their load asks for."""

    def __init__(
        self,
        session: Session,
        pools: LivePools,
        write_line: WriteLine,
        *,
        log_level: str,
        grace_s: float,
        hurry: threading.Event,
    ) -> None:
        self._controller = make_controller(
            session,
            pools,
            driver="local",
            outlives=False,
            log_level=log_level,
            say=lambda who, words: write_line(who.rpartition("/")[2], words),
            hear=lambda who, line: write_line(who.rpartition("/")[2], line),
            grace_s=grace_s,
            hurry=hurry,
        )
        self._rounds = Rounds(
            self._controller,
            tell=lambda decision: write_line(decision.pool, words_of(decision).partition(": ")[2]),
            say=lambda words: write_line("autoscale", words),
        )

    def tend(self) -> None:
        """One round, when its time has come."""
        self._rounds.tend()

    def stop(self) -> None:
        """None of these workers runs any more; those that run something have had the grace for it."""
        from agentq.core.errors import Unavailable

        with suppress(Unavailable):
            self._controller.close(keep=False)


class _LineWriter:
    """Writes a member's line with the member's name before it, one line at a time."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self._console = console
        self._width = max([len(name) for name in names] + [len("server")])
        self._colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
        self._lock = threading.Lock()

    def __call__(self, name: str, line: str) -> None:
        from rich.text import Text

        from agentq.console.words import plain

        words = Text.assemble((f"{name:<{self._width}} │ ", self._colours.get(name, "bold")), plain(line))
        with self._lock:
            self._console.print(words, soft_wrap=True)


class _ServerWatch:
    """Starts our own server again when it has died, and tells when somebody else's comes and goes."""

    def __init__(self, app: AgentQ, write_line: WriteLine) -> None:
        self._app = app
        self._write_line = write_line
        self._looked = time.monotonic()
        self._away = False

    def look(self) -> None:
        """The server's state is known, and told if it has changed; most calls only look at the clock."""
        from agentq.core.errors import Unavailable

        if time.monotonic() - self._looked < SERVER_CHECK_SECONDS:
            return
        self._looked = time.monotonic()
        try:
            note = self._app.revive_server()
        except Unavailable as error:
            note, away = (None if self._away else str(error)), True
        else:
            note, away = note or ("reached again" if self._away else None), False
        self._away = away
        if note is not None:
            self._write_line("server", note)
