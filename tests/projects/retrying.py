"""Steps that fail some times, in the ways that ``Retry`` knows; each notes its attempts in a file."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import tenacity

from agentq import AgentQ, Rate, Retry, Run, this_step
from tests.kit.notes import note

app = AgentQ("retrying")

MOMENT = timedelta(milliseconds=5)


class Busy(Exception):
    """As a provider's client raises it: with the response, which says when to come again."""

    class Response:
        def __init__(self, seconds: str) -> None:
            self.headers = {"Retry-After": seconds}

    def __init__(self, seconds: str) -> None:
        super().__init__("429")
        self.response = self.Response(seconds)


def count(path: str, *words: object) -> int:
    """Note a line; return how many there are."""
    note(path, *words)
    return len(Path(path).read_text().splitlines())


@app.step(retry=Retry(attempts=4, wait=MOMENT, jitter=0))
def shortly(path: str, failures: int) -> int:
    """Fail so often, with short pauses; return the attempt's number."""
    if count(path, os.getpid(), this_step.attempt) <= failures:
        raise ValueError(f"failure {this_step.attempt}")
    return this_step.attempt


@app.step(retry=Retry(attempts=4, wait=MOMENT, jitter=0))
async def shortly_async(path: str, failures: int) -> int:
    if count(path, os.getpid(), this_step.attempt) <= failures:
        raise ValueError(f"failure {this_step.attempt}")
    return this_step.attempt


@app.step(retry=Retry(attempts=4, wait=MOMENT, jitter=0, in_place=timedelta(0)))
def by_timer(path: str, failures: int) -> int:
    if count(path, os.getpid(), this_step.attempt) <= failures:
        raise ValueError(f"failure {this_step.attempt}")
    return this_step.attempt


@app.step(
    retry=Retry(
        stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(60),
        wait=tenacity.wait_chain(tenacity.wait_fixed(0.001), tenacity.wait_random(0, 0.001)),
        on=tenacity.retry_if_exception_message(match="again"),
    )
)
def by_strategies(path: str, words: str) -> None:
    note(path, this_step.attempt)
    raise ValueError(words)


@app.step(retry=Retry(stop=tenacity.stop_after_attempt(3), wait=MOMENT, on=tenacity.retry_if_result(lambda n: n < 0)))
def by_result(path: str, results: list[int]) -> int:
    return results[count(path, this_step.attempt) - 1]


@app.step(retry=Retry(attempts=2, wait=MOMENT))
def busy(path: str, seconds: str) -> str:
    if count(path, time.time()) == 1:
        raise Busy(seconds)
    return "done"


def smaller(attempt: int, error: BaseException | None, arguments: dict[str, Any]) -> dict[str, Any]:
    """The second attempt asks a smaller model, the third one mends the prompt too."""
    assert isinstance(error, ValueError)
    return {"model": "small"} if attempt == 2 else {"prompt": f"{arguments['prompt']}, please"}


@app.step(retry=Retry(attempts=3, wait=MOMENT, jitter=0, change=smaller))
def changing(path: str, prompt: str, model: str = "large") -> str:
    note(path, model, prompt)
    if not prompt.endswith("please"):
        raise ValueError("no")
    return f"{model}: {prompt}"


@app.step(retry=Retry(attempts=3, wait=MOMENT, jitter=0, change=smaller), rate=Rate("changing", requests="1/s"))
def changing_in_line(path: str, prompt: str, *, model: str = "large") -> str:
    note(path, model, prompt)
    if not prompt.endswith("please"):
        raise ValueError("no")
    return f"{model}: {prompt}"


@app.step(retry=Retry(attempts=2, wait=MOMENT, change=lambda attempt, error, arguments: {"modle": "small"}))
def misspelt(path: str) -> None:
    note(path, this_step.attempt)
    raise ValueError("no")


@app.step(retry=Retry(attempts=3, wait=MOMENT, jitter=0))
def dying(path: str, gate: str) -> int:
    """Fail once in place, then wait to be killed; afterwards fail for good."""
    seen = count(path, os.getpid(), this_step.attempt)
    if seen == 2:
        while not Path(gate).exists():
            time.sleep(0.01)
    raise ValueError(f"failure {this_step.attempt}")


@app.agent
async def asks(run: Run, path: str) -> str:
    return await run.call(changing, path, "say it")


def certain(answer: str) -> bool:
    return "maybe" not in answer


@app.step(retry=Retry(attempts=3, wait=MOMENT, jitter=0), check=certain)
def guesses(path: str, answers: list[str]) -> str:
    return answers[count(path, this_step.attempt) - 1]


def fails(path: str, answer: str) -> str:
    raise LookupError(f"no {answer}")


@app.step
def small(path: str, answer: str) -> str:
    """Answers what the check refuses."""
    return f"maybe {answer}"


async def last(path: str, answer: str) -> str:
    return f"surely {answer}"


@app.agent
async def person(run: Run, path: str, answer: str) -> str:
    return await run.call(small, path, answer)


@app.step(check=certain, fallback=[fails, small, last])
def chain_of_fallbacks(path: str, answer: str) -> str:
    raise ValueError("the first one")


@app.step(check=certain, fallback=[fails, small])
def nobody_answers(path: str, answer: str) -> str:
    raise ValueError("the first one")


@app.step(fallback=[fails, person])
def asks_an_agent(path: str, answer: str) -> str:
    raise ValueError("the first one")


@app.agent
async def wants(run: Run, path: str) -> str:
    return await run.call(chain_of_fallbacks, path, "so") + " / " + await run.call(asks_an_agent, path, "so")
