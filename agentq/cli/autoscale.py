"""`agentq autoscale`: pools get as many workers as their load asks for."""

from __future__ import annotations

import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentq.cli.commands import ExampleGroup
from agentq.cli.drain import DURATION
from agentq.cli.errors import CommandRefused
from agentq.cli.output import print_json, print_json_line, say
from agentq.cli.session import Session, app_command, json_option

if TYPE_CHECKING:
    from agentq.core.sizing import Decision
    from agentq.fleet.controller import Controller

TEND_SECONDS = 0.1
LOOK_SECONDS = 1.0
"""Between the two looks of `--once`: rates need two."""


@click.group(cls=ExampleGroup, invoke_without_command=True)
@click.option("--pool", "only", multiple=True, metavar="NAME", help="Scale this pool alone; may be given again.")
@click.option("--driver", metavar="NAME", help="local, kubernetes, heroku, pull or module:maker; else the setting's.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--once", is_flag=True, help="Decide and act once, and end; workers go on.")
@click.option("--metrics", metavar="[HOST:]PORT", help="Serve the decisions there, for KEDA, Prometheus and people.")
@click.option("--push", metavar="[HOST:]PORT", help="Serve them there over gRPC too: KEDA's external push scaler.")
@click.option("--keep", is_flag=True, help="Leave the local driver's workers running at the end.")
@json_option
@app_command
@click.pass_context
def autoscale(
    ctx: click.Context,
    session: Session,
    only: tuple[str, ...],
    driver: str | None,
    dry_run: bool,
    once: bool,
    metrics: str | None,
    push: str | None,
    keep: bool,
    as_json: bool,
) -> int:
    """Give each pool that says max= as many workers as its load asks for, until Ctrl-C.

    Of several such commands one leads, and another takes over within seconds when it is gone. With --json each decision
    that changes something is one line; with --once, and for the history, it is one document. --metrics 9464 serves
    them on this machine alone, --metrics 0.0.0.0:9464 to everybody who can reach it.

    Example:
      agentq autoscale --dry-run
      agentq autoscale --pool tools --once --json
      agentq autoscale history tools
    """
    if ctx.invoked_subcommand is not None:
        return 0
    from agentq.cli.scaling import live_pools, make_controller, serving, unservable

    for name, address in (("metrics", metrics), ("push", push)):
        if address is not None and (once or dry_run):
            raise CommandRefused(f"--{name} serves what is decided while it runs: leave --once and --dry-run out.")
    pools = live_pools(session, only, say, without=unservable(session.app, driver, say))
    if not pools():
        raise CommandRefused(
            "No pool is scaled: give those that shall be the most workers they may have, max = 8, in the pools file."
        )
    hurry = threading.Event()
    controller = make_controller(
        session,
        pools,
        driver=driver,
        is_dry=dry_run,
        is_once=once,
        say=lambda who, words: say(f"{who} {words}"),
        hurry=hurry,
    )
    if once:
        return _once(controller, as_json=as_json)
    with serving(session, metrics=metrics, push=push, say=say):
        return _run(controller, hurry, is_dry=dry_run, keep=keep, as_json=as_json)


@autoscale.command("history")
@click.argument("pool", required=False)
@click.option("--since", type=DURATION, default="7d", show_default=True, help="How far back, such as 2h.")
@click.option("--most", type=click.IntRange(1, 5000), default=50, show_default=True, help="The last so many of a pool.")
@json_option
@app_command
def history(session: Session, pool: str | None, since: timedelta, most: int, as_json: bool) -> int:
    """List what was decided, with its reason; kept for a week.

    Example:
      agentq autoscale history tools --since 2h
    """
    store = session.app.store
    names = [pool] if pool is not None else sorted(store.leaders())
    from_ms = store.now_ms() - int(since.total_seconds() * 1000)
    found = [each for name in names for each in store.decision_history(name, since_ms=max(from_ms, 0), most=most)]
    found.sort(key=lambda decision: decision.at_ms)
    if as_json:
        print_json([document_of(decision) for decision in found])
        return 0
    if not found:
        say("Nothing was decided in that time." if names else "No controller has led a pool yet: agentq autoscale")
        return 0
    from agentq.console.sizing import history_table
    from agentq.console.words import open_console

    open_console().print(history_table(found))
    return 0


@autoscale.command("backtest")
@click.argument("pools", nargs=-1, metavar="[POOL]...")
@click.option("--trace", type=click.Path(dir_okay=False, path_type=Path), help="Try a recorded load instead, of weeks.")
@click.option("--begins", metavar="TIME", help="When the trace begins, as 2026-03-02T00:00; else on a Monday.")
@click.option("--startup", type=DURATION, default=None, help="What a worker takes to start; else as it was measured.")
@click.option("--processes", type=click.IntRange(1), help="Simulate in so many processes; else one for each core.")
@json_option
@app_command
def backtest(
    session: Session,
    pools: tuple[str, ...],
    trace: Path | None,
    begins: str | None,
    startup: timedelta | None,
    processes: int | None,
    as_json: bool,
) -> int:
    """Try whether the weeks before would have told of the next one, and say so.

    Each recorded day is simulated twice: by the law alone, and with what the same hours of the weeks before it had.
    The verdict is kept: where the forecast is better, and the pool says forecast = "count", it may raise the pool's
    size from the next hour on. Without a POOL all that are scaled are tried. A trace is a file as agentq simulate
    takes it, for the one POOL that is named; what it shows is told and not kept.

    Example:
      agentq autoscale backtest tools
    """
    from agentq.cli.backtests import try_pools, try_trace

    if trace is None and begins is not None:
        raise CommandRefused("--begins says when a --trace begins: name that too.")
    if trace is not None:
        return try_trace(session, pools, trace, begins, startup, processes, as_json=as_json)
    return try_pools(session, pools, startup, processes, as_json=as_json)


def document_of(decision: Decision) -> dict[str, Any]:
    """A decision as programs get it."""
    return {**decision.model_dump(mode="json"), "why": decision.why, "at": _moment(decision).isoformat()}


def _once(controller: Controller, *, as_json: bool) -> int:
    controller.look()
    time.sleep(LOOK_SECONDS)
    decided = controller.round()
    # Who has given its pools back knows of no trouble with them.
    troubles = dict.fromkeys(controller.troubles.values())
    controller.close(keep=True)
    for name, leader in controller.leading.leaders.items():
        say(f"Pool {name} is led by {leader}: nothing is done here.")
    for words in troubles:
        say(words)
    if as_json:
        print_json([document_of(decision) for decision in decided])
    elif decided:
        from agentq.console.sizing import sizing_table
        from agentq.console.words import open_console

        open_console().print(sizing_table({each.pool: each for each in decided}, now_ms=decided[0].at_ms))
    return 0 if decided and not troubles else 1


def _run(controller: Controller, hurry: threading.Event, *, is_dry: bool, keep: bool, as_json: bool) -> int:
    from agentq.cli.scaling import Rounds, words_of
    from agentq.core.errors import StoreUnavailable

    def tell(decision: Decision) -> None:
        if as_json:
            print_json_line(document_of(decision))
        else:
            click.echo(f"{_moment(decision).astimezone():%H:%M:%S} {words_of(decision)}")

    stopping = threading.Event()

    def on_signal(_number: int, _frame: object) -> None:
        (hurry if stopping.is_set() else stopping).set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    rounds = Rounds(controller, tell=tell, say=say)
    if is_dry:
        say("Nothing is done: this only says what would be.")
    try:
        while not stopping.is_set():
            rounds.tend()
            stopping.wait(TEND_SECONDS)
    finally:
        if controller.driver.name == "local" and not (keep or is_dry):
            say("Stopping: steps that run may finish; Ctrl-C again ends them at once.")
        try:
            controller.close(keep=keep or is_dry)
        except StoreUnavailable as error:
            say(str(error))
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _moment(decision: Decision) -> datetime:
    return datetime.fromtimestamp(decision.at_ms / 1000, tz=UTC)
