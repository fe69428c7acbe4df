"""The assistant's loop, its steps in place."""

import asyncio
import json
from pathlib import Path

import pytest

from agentq.testing import run_here
from tests.fixtures.model_server import Line, ModelServer, Script, model_server
from workers.agents import assistant as module
from workers.agents import tools
from workers.agents.assistant import assistant

CORPUS = Path(__file__).parents[2] / "fixtures" / "corpus"


def solve(task: str, script: Script, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ModelServer]:
    monkeypatch.setattr(tools, "tools_root", CORPUS.resolve)
    with model_server(script) as server:
        monkeypatch.setenv("AGENTQ_MODEL_URL", server.url)
        monkeypatch.setenv("AGENTQ_MODEL_NAME", "tiny")
        return asyncio.run(run_here(assistant, task)), server


def test_the_agent_is_at_most_sixty_lines() -> None:
    assert len(Path(module.__file__).read_text().splitlines()) <= 60


def test_tools_are_called_until_the_model_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    script = [
        Line(calls=[("calculate", {"expression": "6 * 7"}), ("read_file", {"path": "travel/careers.txt"})]),
        Line(calls=[("search_folder", {"question": "How long is a lease?"})]),
        Line(content="It is 42."),
    ]
    answer, server = solve("What is six times seven?", script, monkeypatch)
    assert answer == "It is 42."
    first, second, third = (asked.messages for asked in server.asked)
    assert [message["role"] for message in first] == ["system", "user"]
    assert first[1]["content"] == "What is six times seven?"
    assert [tool["function"]["name"] for tool in server.asked[0].body["tools"]] == [
        "read_file",
        "search_folder",
        "calculate",
    ]
    assert [message["role"] for message in second[2:]] == ["assistant", "tool", "tool"]
    assert second[3] == {"role": "tool", "tool_call_id": "call_0", "content": "42"}
    assert second[4]["content"].startswith("How to write a resume")
    assert second == third[: len(second)]
    assert "state/leases.txt" in third[-1]["content"]


def test_a_wrong_call_is_told_to_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    script = [
        Line(calls=[("fly", {}), ("calculate", "{broken"), ("read_file", {"path": "/etc/passwd"})]),
        Line(content="I cannot."),
    ]
    answer, server = solve("Fly!", script, monkeypatch)
    assert answer == "I cannot."
    told = [message["content"] for message in server.asked[1].messages if message["role"] == "tool"]
    assert len(told) == 3
    assert all(one.startswith("Refused: ") for one in told)
    assert "root:" not in json.dumps(told)


def test_a_model_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURNS", 3)
    answer, server = solve("Loop!", lambda _: Line(calls=[("calculate", {"expression": "1"})]), monkeypatch)
    assert answer == "No answer after 3 turns. The last words were: (none)"
    assert len(server.asked) == 3
