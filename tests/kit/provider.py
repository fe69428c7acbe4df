"""A provider of models over HTTP that fails as providers do, by a seed, and counts its calls and what they cost.

A process of its own: ``python -m tests.kit.provider``. What becomes of a call follows from the seed, the model, the
prompt and how often that prompt was asked before, in whatever order calls come; outages and the bound on calls at once
follow from the clock.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

Fault = Literal["error", "slow", "hang", "garbage"]
"""An error of the server at once, an answer that comes late, none at all, one that means nothing."""

FAULTS: Final[tuple[Fault, ...]] = ("error", "slow", "hang", "garbage")


@dataclass(frozen=True, kw_only=True)
class Model:
    """How one model of the provider behaves; times in seconds.

    Attributes:
        faults: by fault, its share of the calls.
        usual_s, slow_s: how long an answer takes, and a slow one.
        cents: of an answer, also of a late one, of one that means nothing, and of one that nobody waited for.
        outage: from when to when it answers nothing but 503, in seconds since the scenario began; None for never.
        outage_s: how long it takes to say so.
    """

    faults: Mapping[Fault, float] = field(default_factory=dict)
    usual_s: float = 0.06
    slow_s: float = 1.0
    cents: float = 1.0
    outage: tuple[float, float] | None = None
    outage_s: float = 0.3


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What the provider does until it is told of another one.

    Attributes:
        seed: from which the faults follow.
        models: by name.
        at_once: calls that it serves at the same time; one more is told 429 and when to come again.
        retry_after_s: what it says then, in whole seconds.
    """

    seed: int = 0
    models: Mapping[str, Model]
    at_once: int | None = None
    retry_after_s: int = 1

    def fault_of(self, model: str, prompt: str, number: int) -> Fault | None:
        """Return what becomes of the ``number``-th call with this prompt, from 1; None: it is well."""
        drawn = random.Random(f"{self.seed}:{model}:{prompt}:{number}").random()
        for fault in FAULTS:
            drawn -= self.models[model].faults.get(fault, 0.0)
            if drawn < 0:
                return fault
        return None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the provider has seen since its scenario began.

    Attributes:
        calls: by model and what became of them: ``ok``, a fault, ``outage`` or ``refused`` (429).
        cents: what they cost.
        most_at_once: calls that it served at the same time, at the most.
    """

    calls: Mapping[str, Mapping[str, int]]
    cents: float
    most_at_once: int

    @property
    def total(self) -> int:
        """All calls."""
        return sum(sum(each.values()) for each in self.calls.values())

    def of(self, what: str) -> int:
        """Return how many calls of all models ended so."""
        return sum(each.get(what, 0) for each in self.calls.values())


def answer_to(prompt: str) -> str:
    """Return what a model that is well says."""
    return prompt[::-1]


class Provider:
    """A running provider, as the process that has started it sees it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def begin(self, scenario: Scenario) -> None:
        """Begin anew, with nothing seen."""
        self._ask("PUT", "/scenario", json.dumps(asdict(scenario)))

    def seen(self) -> Seen:
        """Return what was asked since the scenario began."""
        return Seen(**json.loads(self._ask("GET", "/seen")))

    def _ask(self, method: str, path: str, body: str | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            read = response.read()
        finally:
            connection.close()
        assert response.status == 200, read
        return read


@contextmanager
def provider(scenario: Scenario) -> Iterator[Provider]:
    """Serve the scenario on a free port of 127.0.0.1, in a process of its own, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.kit.provider"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        found = Provider(int(process.stdout.readline()))
        found.begin(scenario)
        yield found
    finally:
        # It ends with its input.
        process.stdin.close()
        process.stdout.close()
        process.wait(10)


# -- the process

Said = tuple[int, list[str], bytes]
"""Status, further headers, body."""


class _Server:
    def __init__(self) -> None:
        self.begin(Scenario(models={}))

    def begin(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._began = time.monotonic()
        self._asked: Counter[tuple[str, str]] = Counter()
        self._calls: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._cents = 0.0
        self._now = self._most = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                method, path, _ = line.decode().split(" ", 2)
                body = await reader.readexactly(await _length(reader))
                status, headers, answer = await self._answer(method, path, body, reader)
                lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(answer)}", *headers, "", ""]
                writer.write("\r\n".join(lines).encode() + answer)
                await writer.drain()
        writer.close()

    async def _answer(self, method: str, path: str, body: bytes, reader: asyncio.StreamReader) -> Said:
        if path == "/scenario":
            self.begin(_read(json.loads(body)))
            return 200, [], b""
        if path == "/seen":
            seen = Seen(
                calls={name: dict(each) for name, each in self._calls.items()},
                cents=self._cents,
                most_at_once=self._most,
            )
            return 200, [], json.dumps(asdict(seen)).encode()
        return await self._complete(path.removeprefix("/v1/"), json.loads(body)["prompt"], reader)

    async def _complete(self, model: str, prompt: str, reader: asyncio.StreamReader) -> Said:
        scenario, calls = self._scenario, self._calls[model]
        if scenario.at_once is not None and self._now >= scenario.at_once:
            calls["refused"] += 1
            return 429, [f"Retry-After: {scenario.retry_after_s}"], b"too many calls at once"
        self._now += 1
        self._most = max(self._most, self._now)
        try:
            return await self._served(scenario, model, prompt, reader)
        finally:
            # Of an earlier scenario's calls some still hang.
            if scenario is self._scenario:
                self._now -= 1

    async def _served(self, scenario: Scenario, model: str, prompt: str, reader: asyncio.StreamReader) -> Said:
        behaves, calls = scenario.models[model], self._calls[model]
        since = time.monotonic() - self._began
        if behaves.outage is not None and behaves.outage[0] <= since < behaves.outage[1]:
            calls["outage"] += 1
            await asyncio.sleep(behaves.outage_s)
            return 503, [], b"we are sorry"
        self._asked[model, prompt] += 1
        fault = scenario.fault_of(model, prompt, self._asked[model, prompt])
        calls[fault or "ok"] += 1
        if fault == "error":
            return 500, [], b"internal error"
        self._cents += behaves.cents
        if fault == "garbage":
            await asyncio.sleep(behaves.usual_s)
            return 200, [], b'{"answer": '
        if fault == "hang":
            # Until whoever has asked gives up; then nobody is served any more.
            await reader.read(1)
            return 200, [], b""
        await asyncio.sleep(behaves.slow_s if fault == "slow" else behaves.usual_s)
        return 200, [], json.dumps({"answer": answer_to(prompt)}).encode()


async def _length(reader: asyncio.StreamReader) -> int:
    """Return how long the body is, with the head read to its end."""
    length = 0
    while (line := (await reader.readline()).strip()) != b"":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return length


def _read(told: dict[str, Any]) -> Scenario:
    models = {
        name: Model(**{**each, "outage": tuple(each["outage"]) if each["outage"] else None})
        for name, each in told.pop("models").items()
    }
    return Scenario(**told, models=models)


async def _main() -> None:
    listening = await asyncio.start_server(_Server().serve, "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{listening.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    # Until whoever has started it closes its end, or dies.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    # Connections that are still open would each be told of.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(_main())
