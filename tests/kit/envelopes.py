"""A server that takes what Sentry's clients send, and remembers the events."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.kit.waiting import wait_until


@dataclass
class Envelopes:
    """A running server; `raw` grows with each envelope. Unless `answers` is set, requests wait for it."""

    dsn: str = ""
    raw: list[bytes] = field(default_factory=list)
    answers: threading.Event = field(default_factory=threading.Event)

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events so far, in the order of their arrival."""
        return [event for body in list(self.raw) for event in _events_in(body)]

    def of(self, **tags: str) -> list[dict[str, Any]]:
        """Return the events that have these tags."""
        return [event for event in self.events if tags.items() <= (event.get("tags") or {}).items()]

    def wait_for(self, count: int, **tags: str) -> list[dict[str, Any]]:
        """Return the events with these tags once there are so many."""
        return wait_until(
            lambda: found if len(found := self.of(**tags)) >= count else None,
            description=f"{count} events with {tags}",
            timeout=60,
            report=lambda: json.dumps([told(event) for event in self.events], indent=1),
        )


def told(event: dict[str, Any]) -> tuple[Any, ...]:
    """Return what an event is about, for people who read a failed test."""
    values = (event.get("exception") or {}).get("values") or []
    said = [(value.get("type"), value.get("value"), value.get("mechanism")) for value in values]
    return event.get("logger"), event.get("message"), event.get("logentry"), said, event.get("tags")


def _events_in(body: bytes) -> Iterator[dict[str, Any]]:
    lines = body.split(b"\n")
    for number, line in enumerate(lines):
        if line.startswith(b'{"type":"event"') or b'"type":"event",' in line[:60]:
            yield json.loads(lines[number + 1])


@contextmanager
def envelopes() -> Iterator[Envelopes]:
    """Serve on a free port of 127.0.0.1 until the block ends."""
    found = Envelopes()
    found.answers.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            found.answers.wait(60)
            found.raw.append(body)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    found.dsn = f"http://key@127.0.0.1:{server.server_address[1]}/1"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
