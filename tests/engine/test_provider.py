"""A provider that fails as providers do: what it does itself, and what wrappers make of it."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from benchmarks.apps import ADDRESS, resilient
from benchmarks.resilience import WAYS, measure
from tests.kit.projects import environment
from tests.kit.provider import FAULTS, Model, Provider, Scenario, answer_to, provider
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

STEPS = 60
"""Of the two ways that are compared here; ``python -m benchmarks.resilience`` compares all, with 2,000."""


@pytest.fixture(scope="module")
def told() -> Iterator[Provider]:
    with provider(Scenario(models={})) as found, environment(**{resilient.PROVIDER: str(found.port)}):
        yield found


def outcome_of(model: str, prompt: str) -> str:
    try:
        answer = resilient.ask(model, prompt)
    except resilient.TooMany as error:
        return f"refused, again after {error.retry_after:g} s"
    except (resilient.ProviderError, OSError) as error:
        return type(error).__name__
    assert answer == answer_to(prompt)
    return "ok"


def test_each_fault_is_what_it_is_called(told: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(resilient.TIMEOUT, "0.2")
    models: dict[str, Model] = {
        fault: Model(faults={fault: 1.0}, usual_s=0.0, slow_s=0.5, cents=2.0) for fault in FAULTS
    }
    told.begin(Scenario(models={**models, "well": Model(usual_s=0.0), "away": Model(outage=(0, 60), outage_s=0.0)}))
    found = {model: outcome_of(model, "a prompt") for model in (*models, "well", "away")}
    assert found == {
        "error": "Unwell",
        "slow": "TimeoutError",
        "hang": "TimeoutError",
        "garbage": "Meaningless",
        "well": "ok",
        "away": "Unwell",
    }
    seen = told.seen()
    assert {model: dict(calls) for model, calls in seen.calls.items()} == {
        **{str(fault): {str(fault): 1} for fault in FAULTS},
        "well": {"ok": 1},
        "away": {"outage": 1},
    }
    assert seen.cents == 1.0 + 3 * 2.0, "an error costs nothing, what nobody waited for does"


def test_one_call_more_than_it_serves_is_told_when_to_come_again(told: Provider) -> None:
    told.begin(Scenario(models={"m": Model(faults={"hang": 1.0})}, at_once=1, retry_after_s=7))
    first = http.client.HTTPConnection("127.0.0.1", told.port, timeout=30)
    first.request("POST", "/v1/m", json.dumps({"prompt": "a"}))
    # Its arrival is counted, or the second would be the first.
    wait_until(lambda: told.seen().total == 1, description="the first call has arrived")
    assert outcome_of("m", "b") == "refused, again after 7 s"
    first.close()


def test_its_choices_follow_from_the_seed_and_from_how_often_a_prompt_was_asked(told: Provider) -> None:
    scene = Scenario(seed=3, models={"m": Model(faults={"error": 0.4, "garbage": 0.2}, usual_s=0.0)})
    told.begin(scene)
    asked = [f"p{number % 10}" for number in range(40)]
    times: Counter[str] = Counter()
    for prompt in asked:
        times[prompt] += 1
        expected = {"error": "Unwell", "garbage": "Meaningless", None: "ok"}[scene.fault_of("m", prompt, times[prompt])]
        assert outcome_of("m", prompt) == expected


@pytest.mark.parametrize(("way", "succeed"), [("nothing", False), ("all of them", True)])
def test_what_fails_without_wrappers_succeeds_with_them(
    told: Provider, clean_server: PrivateServer, start_worker: Callable[..., WorkerProcess], way: str, succeed: bool
) -> None:
    """Without an outage, and with time enough, all follows from the seed."""
    models = {
        "large": Model(faults={"error": 0.1, "garbage": 0.05, "slow": 0.05}, usual_s=0.01, slow_s=0.1),
        "small": Model(),
    }
    scene = Scenario(seed=4, models=models)
    asked = [f"prompt {number}" for number in range(STEPS)]
    well = sum(scene.fault_of("large", prompt, 1) in (None, "slow") for prompt in asked)
    assert well < STEPS, "another seed"
    env = {
        ADDRESS: clean_server.celery_url,
        resilient.PROVIDER: str(told.port),
        resilient.WRAPPERS: ",".join(WAYS[way]),
        resilient.TIMEOUT: "30",
        resilient.WAIT: "0.02",
    }
    start_worker("benchmarks.apps.resilient", pool="threads", concurrency=16, env=env)
    found = measure(resilient.make(clean_server.celery_url, WAYS[way]), clean_server.client, told, asked, scene)
    if succeed:
        assert found.succeeded == STEPS
        assert found.seen.total == sum(_tries(scene, prompt) for prompt in asked)
    else:
        assert (found.succeeded, found.seen.total) == (well, STEPS)


def _tries(scene: Scenario, prompt: str) -> int:
    return next(number for number in range(1, 5) if scene.fault_of("large", prompt, number) in (None, "slow"))
