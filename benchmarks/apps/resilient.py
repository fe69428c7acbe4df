"""A step, or a plain Celery task, that asks a provider which fails now and then; with the wrappers to be measured."""

from __future__ import annotations

import http.client
import json
import os
from datetime import timedelta
from typing import Any, Final

from celery import Celery

from agentq import AgentQ, Breaker, Rate, Retry
from benchmarks.apps import ADDRESS, address

PROVIDER: Final = "BENCHMARK_PROVIDER"
"""Environment variable: the provider's port."""

WRAPPERS: Final = "BENCHMARK_WRAPPERS"
"""Environment variable: which wrappers the step has, with commas between them; ``autoretry`` is plain Celery's."""

TIMEOUT: Final = "BENCHMARK_TIMEOUT"
"""Environment variable: after so many seconds a client gives up, 2 unless it is set."""

WAIT: Final = "BENCHMARK_WAIT"
"""Environment variable: the first pause of a retry, in seconds; the usual one unless it is set."""

AT_ONCE: Final = 32
"""What the provider allows."""


class ProviderError(Exception):
    """The provider has not answered well."""


class Unwell(ProviderError):
    """It has an error of its own."""


class TooMany(ProviderError):
    """It says 429, and when to come again."""

    def __init__(self, words: str, retry_after: float = 0.0) -> None:
        super().__init__(words)
        self.retry_after = retry_after


class Meaningless(ProviderError):
    """Its answer cannot be read."""


def ask(model: str, prompt: str) -> str:
    """Return the model's answer; raises ProviderError, or OSError when there is none."""
    timeout = float(os.environ.get(TIMEOUT, 2.0))
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ[PROVIDER]), timeout=timeout)
    try:
        connection.request("POST", f"/v1/{model}", json.dumps({"prompt": prompt}))
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status == 429:
        raise TooMany("429", float(response.headers.get("Retry-After", 0)))
    if response.status != 200:
        raise Unwell(str(response.status))
    try:
        return str(json.loads(body)["answer"])
    except ValueError as error:
        raise Meaningless(repr(body)) from error


def ask_small(model: str, prompt: str) -> str:
    """Ask the small model instead."""
    return "small: " + ask("small", prompt)


OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "retry": {"retry": Retry(attempts=4, wait=timedelta(seconds=float(os.environ.get(WAIT, 1.0))))},
    "breaker": {
        "breaker": Breaker(
            "llm:{model}",
            volume=20,
            window=timedelta(seconds=5),
            reset_after=timedelta(seconds=1),
            on=(Unwell, OSError),
        )
    },
    "fallback": {"fallback": ask_small},
    "rate": {"rate": Rate("provider", in_flight=AT_ONCE)},
    "hedge_after": {"hedge_after": timedelta(milliseconds=500)},
    "cache": {"cache": timedelta(hours=1)},
}
"""By wrapper, how the step is declared with it."""


def make(url: str, wrappers: list[str]) -> Celery:
    """Return the app with the task ``ask``: agentq's step, or plain Celery's for ``autoretry``."""
    if "autoretry" in wrappers:
        plain = Celery("plain", broker=url, backend=url, set_as_current=False)
        plain.conf.broker_connection_retry_on_startup = True
        plain.task(
            name="ask", shared=False, autoretry_for=(Exception,), retry_backoff=True, max_retries=3, retry_jitter=True
        )(ask)
        return plain
    app = AgentQ("resilient", broker=url, set_as_current=False)
    options: dict[str, Any] = {}
    for wrapper in wrappers:
        options |= OPTIONS[wrapper]
    app.step(name="ask", **options)(ask)
    return app


if ADDRESS in os.environ:
    app = make(address(), [name for name in os.environ[WRAPPERS].split(",") if name])
