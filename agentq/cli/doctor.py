"""`agentq doctor`: what is set, what is reached, and what to do."""

from __future__ import annotations

import platform
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from agentq.cli.commands import ExampleCommand
from agentq.cli.errors import UNREACHABLE, exit_code_of
from agentq.cli.output import print_json
from agentq.cli.session import Session, app_command, json_option
from agentq.core.health import (
    Finding,
    decide_archive,
    decide_broker,
    decide_eviction,
    decide_idle_workers,
    decide_letters,
    decide_memory,
    decide_model,
    decide_persistence,
    decide_suspects,
    decide_unserved,
    decide_version,
    decide_workers,
    decide_writing,
)

if TYPE_CHECKING:
    from agentq.app import AgentQ

BROKER_TIMEOUT_S = 3.0

MARKS = {"ok": ("ok", "green"), "warn": ("look", "yellow"), "bad": ("bad", "bold red")}


@click.command(cls=ExampleCommand)
@json_option
@app_command
def doctor(session: Session, as_json: bool) -> int:
    """Check settings, server and workers, and say what to do.

    Ends with 0 when all is well or worth a look only, 1 when something is bad, 3 when the server cannot
    be reached.

    Example:
      agentq doctor --json
    """
    app = session.app
    findings = [
        Finding("application", "ok", f"{session.source.spec}, named by {session.source.named_by}"),
        Finding("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}"),
        decide_model(*_model(app)),
    ]
    code = 0
    try:
        findings += _server_findings(app)
    except Exception as error:
        code = exit_code_of(error)
        if code != UNREACHABLE:
            raise
        findings.append(
            Finding(
                "server",
                "bad",
                str(error),
                "Start the server, or correct AGENTQ_REDIS_URL; without it agentq runs its own.",
            )
        )
    if code == 0 and any(finding.level == "bad" for finding in findings):
        code = 1
    _show(app, findings, as_json=as_json)
    return code


def _model(app: AgentQ) -> tuple[str | None, str | None]:
    url, name = app.settings.model_url, app.settings.model_name
    if url is None:
        return None, name
    # The host alone: some put the key into the URL.
    return urlsplit(url.get_secret_value()).hostname or "an address without a host", name


def _server_findings(app: AgentQ) -> list[Finding]:
    from agentq.cli.catalogue import served_pools

    client = app.store.client
    # No PING: with a full disk the server refuses it, and nothing would be told.
    server: dict[str, Any] = client.info()
    config = _config(client)
    unserved = app.store.unserved()
    return [
        Finding("server", "ok", app.server_words()),
        decide_version(server),
        decide_eviction(config.get("maxmemory-policy") or server.get("maxmemory_policy")),
        decide_persistence(config.get("appendonly"), config.get("appendfsync")),
        decide_writing(server),
        decide_memory(server),
        *_broker_findings(app),
        _archive_finding(app),
        *decide_workers(app.pools, served_pools(app), unserved),
        *decide_idle_workers(
            {card.label: card.why for card in app.store.workers() if card.why is not None}, app.store.drains()
        ),
        decide_letters(app.store.count_letters()),
        *decide_suspects({queue: app.store.count_suspects(queue) for queue in app.pools}),
        *decide_unserved(unserved),
    ]


def _broker_findings(app: AgentQ) -> list[Finding]:
    if app.mode == "fused":
        return []
    connection = app.celery.connection_for_read(connect_timeout=BROKER_TIMEOUT_S)
    try:
        connection.ensure_connection(max_retries=1, timeout=BROKER_TIMEOUT_S)
        error = None
    except Exception as raised:
        error = str(raised) or type(raised).__name__
    finally:
        connection.release()
    return [decide_broker(connection.as_uri(), error)]


def _archive_finding(app: AgentQ) -> Finding:
    from agentq.store.wire import redacted

    url = app.settings.archive_url
    waiting, seconds = app.store.awaiting_archive()
    host = urlsplit(app.address.url).hostname
    shared = host is not None and host not in ("localhost", "127.0.0.1", "::1")
    return decide_archive(redacted(url) if url is not None else None, waiting, seconds, shared=shared)


def _config(client: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("maxmemory-policy", "appendonly", "appendfsync"):
        try:
            answer = client.config_get(name)
        except Exception as error:
            # A hosted server may forbid CONFIG; a server that is gone is another matter.
            if exit_code_of(error) == UNREACHABLE:
                raise
            return {}
        found.update({_text(key): _text(value) for key, value in answer.items()})
    return found


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _show(app: AgentQ, findings: list[Finding], *, as_json: bool) -> None:
    if as_json:
        # Pydantic writes a SecretStr as asterisks; a URL may hold a password, so it is one of them.
        settings = app.settings.model_dump(mode="json")
        print_json({"findings": [vars(finding) for finding in findings], "settings": settings})
        return
    from rich.text import Text

    from agentq.console.tables import listing
    from agentq.console.words import open_console

    console = open_console()
    rows = [
        (Text(MARKS[finding.level][0], style=MARKS[finding.level][1]), finding.what, finding.words)
        for finding in findings
    ]
    console.print(listing(("", "checked", "found"), rows, fold=("found",)))
    to_do = [finding for finding in findings if finding.advice]
    if to_do:
        console.print("\nWhat to do", style="bold")
        for finding in to_do:
            console.print(f"  {finding.what}: {finding.advice}", markup=False, soft_wrap=False)
    console.print("\nSettings", style="bold")
    console.print(
        listing(("setting", "value"), [(name, _setting(value)) for name, value in app.settings], fold=("value",))
    )


def _setting(value: object) -> str:
    from agentq.console.words import duration

    if isinstance(value, timedelta):
        return duration(value)
    return "-" if value is None else str(value)
