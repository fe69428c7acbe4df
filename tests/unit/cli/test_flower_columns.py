"""Flower's tasks know their run, agent and step."""

from __future__ import annotations

from celery.events.state import State, Task

from agentq.flower.columns import AgentNames, Condemned, describe_task

NAMES = {"run-1": "research"}


def described(uuid: str, name: str, *, root_id: str | None) -> tuple[str, str, str]:
    state = State()
    task = describe_task(Task(uuid=uuid, name=name, root_id=root_id, cluster_state=state), AgentNames(NAMES.get))
    shown = task.as_dict()
    return shown["run_id"], shown["agent"], shown["step"]


def test_agent_step_and_plain_task() -> None:
    assert described("run-1", "research", root_id="run-1") == ("run-1", "research", "")
    assert described("s", "workers.app.search_part", root_id="run-1") == ("run-1", "research", "search_part")
    assert described("p", "shop.tasks.mail", root_id=None) == ("p", "", "mail")


def test_a_store_that_is_away_costs_the_name_and_is_asked_again() -> None:
    asked: list[str] = []

    def look_up(run_id: str) -> str | None:
        asked.append(run_id)
        if len(asked) == 1:
            raise ConnectionError
        return "research"

    names = AgentNames(look_up)
    assert [names.of("run-1"), names.of("run-1"), names.of("run-1")] == ["", "research", "research"]
    assert len(asked) == 2


def test_a_step_that_is_a_dead_letter_says_so() -> None:
    now, asked = [0.0], []

    def look_up() -> list[str]:
        asked.append(now[0])
        if now[0] >= 10:
            raise ConnectionError("away")
        return ["s"]

    condemned = Condemned(look_up, clock=lambda: now[0])
    state = State()
    names = AgentNames(NAMES.get)

    def step_of(uuid: str) -> str:
        task = Task(uuid=uuid, name="steps.read", root_id="run", cluster_state=state)
        return str(describe_task(task, names, condemned).step)

    assert [step_of("s"), step_of("other")] == ["read (dead letter)", "read"]
    assert asked == [0.0]
    now[0] = 10.0
    assert step_of("s") == "read"
