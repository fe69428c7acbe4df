"""What an asyncio loop has for the world outside it, refused: a replay could not repeat it."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from agentq.core.errors import UsageError


def refuse(what: str) -> NoReturn:
    """Raises UsageError that says what to use instead."""
    raise UsageError(
        f"{what} is not possible inside an agent, whose every wait must come back the same in a replay: "
        "use run.local or a step."
    )


class _Refused:
    """A method that refuses; it is called in the agent's code, so nothing is left half done."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return lambda *args, **kwargs: refuse(f"loop.{self._name}")


class Secluded(asyncio.AbstractEventLoop):
    """A loop without threads, sockets, files, child processes and signals."""

    run_in_executor: Any = _Refused()
    set_default_executor: Any = _Refused()
    getaddrinfo: Any = _Refused()
    getnameinfo: Any = _Refused()
    create_connection: Any = _Refused()
    create_server: Any = _Refused()
    sendfile: Any = _Refused()
    start_tls: Any = _Refused()
    create_unix_connection: Any = _Refused()
    create_unix_server: Any = _Refused()
    connect_accepted_socket: Any = _Refused()
    create_datagram_endpoint: Any = _Refused()
    connect_read_pipe: Any = _Refused()
    connect_write_pipe: Any = _Refused()
    subprocess_shell: Any = _Refused()
    subprocess_exec: Any = _Refused()
    add_reader: Any = _Refused()
    remove_reader: Any = _Refused()
    add_writer: Any = _Refused()
    remove_writer: Any = _Refused()
    sock_recv: Any = _Refused()
    sock_recv_into: Any = _Refused()
    sock_recvfrom: Any = _Refused()
    sock_recvfrom_into: Any = _Refused()
    sock_sendall: Any = _Refused()
    sock_sendto: Any = _Refused()
    sock_connect: Any = _Refused()
    sock_accept: Any = _Refused()
    sock_sendfile: Any = _Refused()
    add_signal_handler: Any = _Refused()
    remove_signal_handler: Any = _Refused()
    run_forever: Any = _Refused()
    run_until_complete: Any = _Refused()
    stop: Any = _Refused()
