"""The shipped agents on real workers, some of which are SIGKILLed in the middle."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.fixtures.model_server import Asked, Line, model_server
from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until
from tests.kit.worker import WorkerProcess

TIMEOUT = 120.0
QUESTION = "How should agent state be kept so that a crashed agent can resume?"
POOLS = ("managers", "tools", "model")
WORDS = ("agent", "state", "crash", "journal", "lease", "worker", "garden", "rose", "soil", "train", "price", "market")
START = Callable[..., WorkerProcess]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 small files that no two of are alike."""
    folder = tmp_path_factory.mktemp("documents")
    chance = random.Random(11)
    for number in range(200):
        lines = [
            f"The {chance.choice(WORDS)} {n} is kept by the {chance.choice(WORDS)} of the {chance.choice(WORDS)}."
            for n in range(60)
        ]
        (folder / f"{number:03}.md").write_text(f"# Page {number}\n\n" + "\n\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def agents(module_server: PrivateServer, mode_env: dict[str, str]) -> Iterator[ModuleType]:
    """The shipped app as a client has it; each test starts workers of its own."""
    loaded = load_module("workers.app", url=module_server.celery_url, **mode_env)
    yield loaded
    loaded.app.close()


def research(agents: ModuleType, folder: Path) -> Any:
    return agents.app.agents["research"].start(QUESTION, str(folder))


def done(handle: Any, step: str) -> int:
    return sum(one.status == "succeeded" and one.name.endswith(step) for one in handle.steps())


def research_survives(
    start: Callable[[], WorkerProcess], agents: ModuleType, documents: Path, rng: random.Random, *, kills: int
) -> None:
    """Kill one of two workers in the middle of so many runs, and of a few more if none of them has lost anything."""
    workers = [start(), start()]
    undisturbed = research(agents, documents).get(timeout=TIMEOUT)
    assert len(undisturbed.quotations) >= 3
    moved = done_so_far = 0
    while done_so_far < kills or (moved == 0 and done_so_far < kills + 5):
        handle = research(agents, documents)
        step, seen = rng.choice([("survey_part", rng.randrange(5, 90)), ("search_part", rng.randrange(5, 90))])
        wait_until(lambda: done(handle, step) >= seen, description=f"{seen} of {step}", timeout=TIMEOUT)  # noqa: B023
        killed = datetime.now(UTC)
        workers.pop(rng.randrange(2)).kill_tree()
        assert handle.get(timeout=TIMEOUT) == undisturbed
        # What the killed worker held is started elsewhere; how soon, the keeper's tests tell.
        events = list(handle.events(follow=False))
        lost = [event.step_id for event in events if event.kind == "lost"]
        again = {event.step_id: event.at for event in events if event.kind == "started" and event.at > killed}
        assert all(again[step_id] - killed < timedelta(seconds=30) for step_id in lost)
        moved, done_so_far = moved + len(lost), done_so_far + 1
        workers.append(start())
    assert moved > 0


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.long)])
def test_research_over_200_files_survives(
    agents: ModuleType,
    clean_server: PrivateServer,
    start_worker: START,
    documents: Path,
    mode_env: dict[str, str],
    rng: random.Random,
    kills: int,
) -> None:
    def start() -> WorkerProcess:
        return start_worker("workers.app", url=clean_server.celery_url, queues=POOLS, env=mode_env)

    research_survives(start, agents, documents, rng, kills=kills)


def conversation(asked: Asked) -> Line:
    """A model without memory: what it says follows from the conversation, as after a crash it must."""
    turn = sum(message["role"] == "assistant" for message in asked.messages)
    if turn < 4:
        return Line(calls=[("calculate", {"expression": f"{turn} + 1"})], wait=1.0, tokens=(100, 10))
    return Line(content="All added up.", wait=1.0, tokens=(100, 10))


@pytest.mark.parametrize("turn", [2, 4])
def test_the_assistant_makes_no_committed_call_again(
    agents: ModuleType, clean_server: PrivateServer, start_worker: START, mode_env: dict[str, str], turn: int
) -> None:
    with model_server(conversation) as model:
        env = {**mode_env, "AGENTQ_MODEL_URL": model.url, "AGENTQ_MODEL_NAME": "tiny"}

        def start() -> WorkerProcess:
            return start_worker("workers.app", url=clean_server.celery_url, queues=POOLS, env=env)

        worker = start()
        handle = agents.app.agents["assistant"].start("Add!")
        wait_until(lambda: len(model.asked) >= turn, description=f"model call {turn} is under way")
        worker.kill_tree()
        start()
        assert handle.get(timeout=TIMEOUT) == "All added up."
    keys = [asked.headers["idempotency-key"] for asked in model.asked]
    again = {key for key, number in Counter(keys).items() if number > 1}
    assert again == {keys[turn - 1]}, "only the call that was under way is made again"
    assert len(keys) == 6
    assert handle.usage().tokens_in == 500, "what was spent is what was committed"
