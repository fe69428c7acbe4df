"""What was decided for each pool, over HTTP: for KEDA, for an HPA by way of Prometheus, and for whoever wants to look.

It reads what the leading controller has published and decides nothing, so that any number of these may run. A decision
that is older than a controller can be alive is not told as one: whoever pulls it keeps what it has, or falls back.

| Path | Is |
|---|---|
| /pools | all pools, by name, as JSON |
| /pools/NAME | one of them; 404 where nothing was ever decided, 503 where no controller is at work |
| /metrics | all of them in Prometheus' text format |
| /healthz | 200 while the store is reached |

Formats: https://keda.sh/docs/latest/scalers/metrics-api/ and
https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from agentq.core.errors import Unavailable, UsageError
from agentq.core.sizing import Decision
from agentq.fleet.published import Known, NoController, Published

_JSON: Final = "application/json"
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    kind: str
    text: str


class Endpoint:
    """A server of these paths, in threads of its own.

    Args:
        published: the decisions.
        host, port: where it listens; 0 for a free port.

    Raises UsageError when it cannot listen there.
    """

    def __init__(self, published: Published, *, host: str, port: int) -> None:
        self._published = published
        try:
            self._server = _server_at(host, port)((host, port), _handler(self.answer))
        except OSError as error:
            raise UsageError(f"The metrics cannot be served at {host}:{port}: {error.strerror or error}.") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="agentq-metrics", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_port

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Serve no more."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def answer(self, path: str) -> _Answer:
        """What is told at a path."""
        try:
            known = self._published.now()
        except Unavailable as error:
            return _refused(503, str(error))
        if path == "/metrics":
            return _Answer(200, _TEXT, "\n".join(exposition(known)) + "\n")
        if path == "/pools":
            return _told({name: document_of(known, decision) for name, decision in known.decisions.items()})
        if path == "/healthz":
            return _told({"pools": len(known.decisions)})
        parent, _, name = path.rpartition("/")
        if parent != "/pools" or not name:
            return _refused(404, "there are /pools, /pools/NAME, /metrics and /healthz")
        return self._of_pool(known, name)

    def _of_pool(self, known: Known, name: str) -> _Answer:
        try:
            return _told(document_of(known, known.decision_of(name)))
        except KeyError as error:
            return _refused(404, str(error.args[0]))
        except NoController as error:
            return _refused(503, str(error))


def document_of(known: Known, decision: Decision) -> dict[str, Any]:
    """A decision as it is told; `desired` is what a platform pulls: those that rest are counted."""
    load = decision.load
    return {
        "pool": decision.pool,
        "desired": decision.replicas,
        "ready": load.ready,
        "starting": load.starting,
        "draining": decision.draining,
        "resting": decision.resting,
        "waiting": load.waiting,
        "running": load.running,
        "oldest_wait_s": load.oldest_wait_s,
        "arrivals_per_second": load.quick_rate,
        "service_s": load.service_s,
        "tokens_per_second": decision.cognition.tokens_per_second,
        "failed": decision.cognition.failed,
        "forecast": decision.size.forecast,
        "why": decision.why,
        "at": datetime.fromtimestamp(decision.at_ms / 1000, tz=UTC).isoformat(),
        "fresh": known.is_fresh(decision),
    }


_GAUGES: Final[tuple[tuple[str, str, Callable[[Decision], float]], ...]] = (
    ("waiting_steps", "Steps that nobody has begun.", lambda each: each.load.waiting),
    ("running_steps", "Attempts that run.", lambda each: each.load.running),
    ("oldest_wait_seconds", "For how long the oldest step waits.", lambda each: each.load.oldest_wait_s),
    ("arrivals_per_second", "Steps that come, over ten seconds.", lambda each: each.load.quick_rate),
    ("service_seconds", "Mean time of an attempt.", lambda each: each.load.service_s),
    ("failed_ratio", "Share of the attempts that fail.", lambda each: each.cognition.failed),
    ("tokens_per_second", "Tokens that steps spend.", lambda each: each.cognition.tokens_per_second),
    ("expected_steps", "Steps that running agents will ask for next.", lambda each: each.cognition.expected),
)


def exposition(known: Known) -> Iterator[str]:
    """The lines of Prometheus' text format.

    Of a pool without a controller only the age of its last decision is told: a series that ends is seen, a number that
    stays is believed.
    """
    fresh = [each for each in known.decisions.values() if known.is_fresh(each)]
    words = "Workers that there are to be, those that rest counted."
    yield from _gauge("desired_workers", words, ((each, each.replicas, {}) for each in fresh))
    states: tuple[tuple[str, Callable[[Decision], int]], ...] = (
        ("ready", lambda each: each.load.ready),
        ("starting", lambda each: each.load.starting),
        ("draining", lambda each: each.draining),
        ("resting", lambda each: each.resting),
    )
    yield from _gauge(
        "workers",
        "Workers that there are.",
        ((each, count(each), {"state": state}) for state, count in states for each in fresh),
    )
    foretold: list[tuple[Decision, float, dict[str, str]]] = [
        (each, each.size.forecast, {}) for each in fresh if each.size.forecast is not None
    ]
    if foretold:
        yield from _gauge("forecast_workers", "Workers for what the weeks before had at this hour.", iter(foretold))
    for name, words, value in _GAUGES:
        yield from _gauge(name, words, ((each, value(each), {}) for each in fresh))
    yield from _gauge(
        "decision_age_seconds",
        "Since when nothing was decided.",
        ((each, max(0, known.now_ms - each.at_ms) / 1000, {}) for each in known.decisions.values()),
    )


def _gauge(name: str, words: str, values: Iterator[tuple[Decision, float, dict[str, str]]]) -> Iterator[str]:
    yield f"# HELP agentq_pool_{name} {words}"
    yield f"# TYPE agentq_pool_{name} gauge"
    for decision, value, more in values:
        labels = ",".join(f'{label}="{_escaped(text)}"' for label, text in {"pool": decision.pool, **more}.items())
        yield f"agentq_pool_{name}{{{labels}}} {value:g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _told(document: object) -> _Answer:
    return _Answer(200, _JSON, json.dumps(document, ensure_ascii=False) + "\n")


def _refused(status: int, words: str) -> _Answer:
    return _Answer(status, _JSON, json.dumps({"error": words}, ensure_ascii=False) + "\n")


def _server_at(host: str, port: int) -> type[ThreadingHTTPServer]:
    """A server for the kind of address that this is, IPv4 or IPv6."""
    kind = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    return type("_Here", (_Server,), {"address_family": kind})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: who went away before the answer is no trouble of ours."""


def _handler(answer: Callable[[str], _Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = "agentq"
        sys_version = ""
        timeout = 10

        def do_GET(self) -> None:
            said = answer(unquote(urlsplit(self.path).path).rstrip("/") or "/")
            payload = said.text.encode()
            self.send_response(said.status)
            self.send_header("Content-Type", said.kind)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 — the base class calls it so
            pass

    return Handler
