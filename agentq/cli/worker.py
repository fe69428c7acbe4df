"""`agentq worker`: this process becomes a stock Celery worker for the pools named."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import click

from agentq.cli.commands import ExampleCommand
from agentq.cli.errors import CommandRefused
from agentq.cli.session import Session, app_command
from agentq.cli.workers import check_installed, child_environment, plan_one_worker, with_devices, worker_argv


@click.command(cls=ExampleCommand)
@click.option(
    "--pool",
    "pools",
    metavar="NAME",
    multiple=True,
    required=True,
    help="A pool to serve; may be given again for pools of the same kind.",
)
@click.option("--concurrency", type=click.IntRange(min=1), metavar="N", help="Slots; else the pool's own number.")
@click.option(
    "--least",
    type=click.IntRange(min=1),
    metavar="N",
    help="Of a prefork pool: begin with so many slots, and grow and shrink by what waits, up to --concurrency.",
)
@click.option(
    "--log-level",
    default="INFO",
    show_default=True,
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
)
@app_command
def worker(session: Session, pools: tuple[str, ...], concurrency: int | None, least: int | None, log_level: str) -> int:
    """Run one Celery worker that serves the pools named.

    What it runs is `celery -A APP worker` with the pools' queues, kind and slots.

    Example:
      agentq worker --pool tools --concurrency 4
    """
    plan = plan_one_worker(with_devices(session.app, pools), pools, concurrency=concurrency)
    check_installed(plan)
    if least is not None:
        if plan.kind != "prefork":
            raise CommandRefused(
                f"--least is for prefork pools, whose children come and go; {plan.name} is {plan.kind}."
            )
        if least > plan.concurrency:
            raise CommandRefused(f"--least is {least}, more than the {plan.concurrency} slots of the worker at most.")
        plan = replace(plan, least=least)
    argv = worker_argv(plan, session.celery_spec, log_level=log_level, banner=True)
    sys.stdout.flush()
    os.execve(argv[0], argv, child_environment(session.source))
