"""`agentq up` finds a port, names its lines, and tells when the server comes and goes."""

from __future__ import annotations

import io
import socket
from typing import Any

import pytest
from rich.console import Console

from agentq.cli import up
from agentq.cli.up import _LineWriter, _ServerWatch, free_port
from agentq.core.errors import StoreUnavailable


class FakeApp:
    """An application whose server is in one state after the other."""

    def __init__(self, *states: str | Exception | None) -> None:
        self._states = list(states)

    def revive_server(self) -> str | None:
        state = self._states.pop(0)
        if isinstance(state, Exception):
            raise state
        return state


def test_changes_of_the_server_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "SERVER_CHECK_SECONDS", 0.0)
    away = StoreUnavailable(url="redis://here", reason="refused")
    app: Any = FakeApp(None, away, away, None, None, "was started again")
    told: list[str] = []
    watch = _ServerWatch(app, lambda name, line: told.append(f"{name}: {line}"))
    for _ in range(6):
        watch.look()
    assert told == [f"server: {away}", "server: reached again", "server: was started again"]


def test_between_checks_nobody_is_asked() -> None:
    app: Any = FakeApp()
    _ServerWatch(app, lambda _name, _line: None).look()


def test_the_next_free_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) != port


def test_lines_begin_with_the_name_and_cannot_steer_the_terminal() -> None:
    stream = io.StringIO()
    write = _LineWriter(Console(file=stream, width=40), ["tools", "managers"])
    write("tools", "a [bold]line[/bold]\x1b[2J" + "x" * 50)
    assert stream.getvalue() == "tools    │ a [bold]line[/bold][2J" + "x" * 50 + "\n"
