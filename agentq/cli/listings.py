"""`agentq agents`, `agentq workers list`: what there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from agentq.cli.commands import ExampleCommand, ExampleGroup
from agentq.cli.output import print_json, say
from agentq.cli.session import Session, app_command, json_option

if TYPE_CHECKING:
    from agentq.store.workers import WorkerCard


@click.command(cls=ExampleCommand)
@json_option
@app_command
def agents(session: Session, as_json: bool) -> int:
    """List the agents that can be run, with their parameters.

    Example:
      agentq agents --json
    """
    from agentq.cli.catalogue import agent_rows

    rows = agent_rows(session.app)
    if as_json:
        print_json(rows)
        return 0
    if not rows:
        say("No agent is known: the application has none, and no worker announced one.")
        return 0
    _print(
        ("agent", "pool", "parameters", "what it does"),
        [(row["agent"], row["pool"], _options(row["parameters"]), row["summary"]) for row in rows],
        fold=("parameters", "what it does"),
    )
    return 0


def _options(parameters: Mapping[str, Mapping[str, Any]]) -> str:
    words = [f"--{name.replace('_', '-')}" for name in parameters]
    return " ".join(
        word if entry.get("required") else f"[{word}]" for word, entry in zip(words, parameters.values(), strict=True)
    )


@click.group(cls=ExampleGroup)
def workers() -> None:
    """List the workers that are alive.

    Example:
      agentq workers list
    """


@workers.command("list")
@json_option
@app_command
def list_workers(session: Session, as_json: bool) -> int:
    """List the workers that are alive, with their pools and slots.

    Example:
      agentq workers list --json
    """
    found = session.app.store.workers()
    if as_json:
        print_json(found)
        return 0
    if not found:
        say("No worker is alive. Start all of them: agentq up")
        return 0
    _print(
        ("worker", "pools", "slots", "holds", "state", "devices", "id"),
        [
            (
                each.label,
                ", ".join(each.queues),
                each.concurrency,
                each.held,
                state_of(each),
                "\n".join(device_lines(each)) or "-",
                each.id,
            )
            for each in found
        ],
        right=("slots", "holds"),
        fold=("pools", "state", "devices"),
    )
    return 0


def state_of(card: WorkerCard) -> str:
    """Whether the worker takes work, and why not."""
    if card.why is not None:
        return f"takes nothing: {card.why}"
    left_out = card.report.get("left_out")
    return f"takes nothing of {', '.join(left_out)}: drained" if left_out else "takes work"


def device_lines(card: WorkerCard) -> list[str]:
    """Each of the worker's GPUs: what it is, and how it is used where the driver says so."""
    uses = card.report.get("devices", {})
    return [_device(device, uses.get(device["id"], {})) for device in card.details.get("devices", [])]


def _device(device: Mapping[str, Any], use: Mapping[str, Any]) -> str:
    words = [device.get("kind") or f"device {device['id']}"]
    used, memory = use.get("used_gb"), device.get("memory_gb")
    if memory is not None:
        words.append(f"{memory:.0f} GB" if used is None else f"{used:.0f} of {memory:.0f} GB")
    if use.get("busy") is not None:
        words.append(f"{use['busy']:.0%} busy")
    return ", ".join(words)


def _print(
    columns: tuple[str, ...],
    rows: list[tuple[object, ...]],
    *,
    right: tuple[str, ...] = (),
    fold: tuple[str, ...] = (),
) -> None:
    from agentq.console.tables import listing
    from agentq.console.words import open_console

    open_console().print(listing(columns, rows, right=right, fold=fold))
