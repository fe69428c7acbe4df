"""Platforms of our own, on loopback ports: what a driver asks for is answered as the real ones answer, and noted."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
"""The fakes' clock, which is not this machine's."""


@dataclass(frozen=True)
class Call:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


class Platform:
    """A server that answers by ``answer`` and notes each call; ``refuse`` answers the next calls instead."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.refuse: list[Answer] = []
        self.url = ""

    def answer(self, call: Call) -> Answer:
        """Answer one call; to be overridden."""
        raise NotImplementedError

    def heard(self, method: str) -> list[Call]:
        """The calls with that method."""
        return [call for call in self.calls if call.method == method]

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve on a free loopback port."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._handle))
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def _handle(self, call: Call) -> Answer:
        self.calls.append(call)
        return self.refuse.pop(0) if self.refuse else self.answer(call)


def _handler(handle: Callable[[Call], Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            url = urlsplit(self.path)
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            answer = handle(Call(self.command, url.path, parse_qs(url.query), dict(self.headers.items()), body))
            text = json.dumps(answer.body).encode()
            self.send_response_only(answer.status)
            for name, value in {"Date": format_datetime(NOW, usegmt=True), **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_PUT = do_PATCH = do_DELETE = _any

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 — the base class calls it so
            pass

    return Handler


class FakeHeroku(Platform):
    """One app, as the formation and the dyno API show it."""

    KEY = "HRKU-secret"

    def __init__(self, app: str = "shop", page: int = 1000) -> None:
        super().__init__()
        self.app, self.page = app, page
        self.formation: dict[str, int] = {"worker": 1, "web": 2}
        self.dynos: list[dict[str, Any]] = []

    def answer(self, call: Call) -> Answer:
        """As Heroku does, with its errors."""
        if call.headers.get("Authorization") != f"Bearer {self.KEY}":
            return Answer(401, {"id": "unauthorized", "message": "Invalid credentials provided."})
        if call.headers.get("Accept") != "application/vnd.heroku+json; version=3":
            return Answer(404, {"id": "not_found", "message": "The requested API endpoint was not found."})
        place = re.fullmatch(r"/apps/([^/]+)/(formation|dynos)(?:/([^/]+))?", call.path)
        if place is None or place[1] != self.app:
            return Answer(404, {"id": "not_found", "message": "Couldn't find that app."})
        if call.method == "PATCH":
            if place[3] not in self.formation:
                return Answer(404, {"id": "not_found", "message": "Couldn't find that process type."})
            if call.body["quantity"] > 100:
                return Answer(422, {"id": "invalid_params", "message": "Cannot update to more than 100 dynos."})
            self.formation[place[3]] = call.body["quantity"]
            return Answer(200, {"type": place[3], "quantity": call.body["quantity"]})
        rows = (
            [{"type": kind, "quantity": number} for kind, number in self.formation.items()]
            if place[2] == "formation"
            else self.dynos
        )
        found = re.match(r"id (\d*)\.\.", call.headers.get("Range", ""))
        begin = int(found[1] or 0) if found else 0
        shown, rest = rows[begin : begin + self.page], rows[begin + self.page :]
        if rest:
            return Answer(206, shown, {"Next-Range": f"id {begin + self.page}..; max={self.page}"})
        return Answer(200, shown)


class FakeCluster(Platform):
    """One namespace with Deployments, whose pods come and go as a test says."""

    def __init__(self, namespace: str = "agents") -> None:
        super().__init__()
        self.namespace = namespace
        self.replicas: dict[str, int] = {"tools": 2}
        self.versions: dict[str, int] = {"tools": 1}
        self.pods: dict[str, dict[str, Any]] = {}

    def pod(self, name: str, *, of: str = "tools", created: str = "2026-05-01T11:59:00Z", **status: Any) -> None:
        """Make a pod."""
        self.pods[name] = {
            "metadata": {"name": name, "labels": {"app": of}, "annotations": {}, "creationTimestamp": created},
            "spec": {"containers": [{"name": "worker"}]},
            "status": {"phase": "Running", **status},
        }

    def answer(self, call: Call) -> Answer:
        """As the API server does, with its errors."""
        scale = re.fullmatch(r"/apis/apps/v1/namespaces/([^/]+)/deployments/([^/]+)/scale", call.path)
        if scale is not None:
            return self._scale(call, scale[1], scale[2])
        pods = re.fullmatch(r"/api/v1/namespaces/([^/]+)/pods(?:/([^/]+))?", call.path)
        if pods is None or pods[1] != self.namespace:
            return _status(404, "NotFound", f"the server could not find {call.path}")
        if pods[2] is None:
            wanted = call.query.get("labelSelector", [""])[0].partition("=")[2]
            found = [pod for pod in self.pods.values() if pod["metadata"]["labels"]["app"] == wanted]
            return Answer(200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": found})
        if pods[2] not in self.pods:
            return _status(404, "NotFound", f'pods "{pods[2]}" not found')
        if call.method == "PATCH":
            notes = self.pods[pods[2]]["metadata"]["annotations"] | call.body["metadata"]["annotations"]
            self.pods[pods[2]]["metadata"]["annotations"] = {
                key: note for key, note in notes.items() if note is not None
            }
        return Answer(200, {"kind": "Pod", "apiVersion": "v1", **self.pods[pods[2]]})

    def _scale(self, call: Call, namespace: str, name: str) -> Answer:
        if namespace != self.namespace or name not in self.replicas:
            return _status(404, "NotFound", f'deployments.apps "{name}" not found')
        if call.method == "PUT":
            if call.body["metadata"]["resourceVersion"] != str(self.versions[name]):
                return _status(409, "Conflict", "the object has been modified; please apply your changes to it")
            self.replicas[name] = call.body["spec"]["replicas"]
            self.versions[name] += 1
        return Answer(
            200,
            {
                "kind": "Scale",
                "apiVersion": "autoscaling/v1",
                "metadata": {"name": name, "namespace": namespace, "resourceVersion": str(self.versions[name])},
                "spec": {"replicas": self.replicas[name]},
                "status": {"replicas": self.replicas[name], "selector": f"app={name}"},
            },
        )


def _status(code: int, reason: str, message: str) -> Answer:
    return Answer(code, {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": code})
