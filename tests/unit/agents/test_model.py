import asyncio
import logging

import pytest

from tests.fixtures.model_server import Line, model_server
from workers.agents import model
from workers.agents.model import ModelError, ModelUnavailable, Reply

KEY = "sk-very-secret"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "NAME", "KEY"):
        monkeypatch.delenv(f"AGENTQ_MODEL_{name}", raising=False)


def configure(monkeypatch: pytest.MonkeyPatch, url: str, key: str | None = KEY) -> None:
    monkeypatch.setenv("AGENTQ_MODEL_URL", url)
    monkeypatch.setenv("AGENTQ_MODEL_NAME", "tiny")
    if key is not None:
        monkeypatch.setenv("AGENTQ_MODEL_KEY", key)


def ask() -> Reply:
    return asyncio.run(model.chat([{"role": "user", "content": "Hello?"}], tools=[{"type": "function"}]))


def test_without_url_and_name_no_model_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.configured() is None
    assert model.configured_name() is None
    monkeypatch.setenv("AGENTQ_MODEL_URL", "http://127.0.0.1:1/v1")
    assert model.configured() is None
    with pytest.raises(ModelError, match="No model is configured"):
        ask()


@pytest.mark.parametrize("tail", ["", "/", "/chat/completions"])
def test_a_reply_is_text_or_calls(monkeypatch: pytest.MonkeyPatch, tail: str) -> None:
    script = [Line(content="Hi."), Line(calls=[("calculate", {"expression": "1+1"}), ("x", "{broken")])]
    with model_server(script) as server:
        configure(monkeypatch, server.url + tail)
        first, second = ask(), ask()
    assert first == Reply(text="Hi.", calls=[], message={"role": "assistant", "content": "Hi."})
    assert [(call.id, call.name, call.arguments) for call in second.calls] == [
        ("call_0", "calculate", '{"expression": "1+1"}'),
        ("call_1", "x", "{broken"),
    ]
    assert second.message["tool_calls"][0]["function"]["name"] == "calculate"
    asked = server.asked[0]
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body["model"] == "tiny"
    assert asked.body["tools"] == [{"type": "function"}]
    assert "idempotency-key" not in asked.headers  # there is none outside a run


@pytest.mark.parametrize(
    ("status", "error"), [(400, ModelError), (401, ModelError), (429, ModelUnavailable), (503, ModelUnavailable)]
)
def test_an_error_names_address_and_status_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, status: int, error: type[ModelError], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with model_server([Line(status=status, body=f"the key {KEY} is wrong")]) as server:
        configure(monkeypatch, server.url.replace("127", "someone:pass-word@127") + "?token=hidden")
        with pytest.raises(ModelError) as caught:
            ask()
    assert type(caught.value) is error
    said = str(caught.value)
    assert f"status {status}" in said
    assert "http://127.0.0.1:" in said
    for secret in (KEY, "pass-word", "hidden"):
        assert secret not in said + repr(caught.value) + caplog.text + repr(model.configured())


@pytest.mark.parametrize("body", ["", "<html>", "{}", '{"choices": []}', '{"choices": [{"message": 3}]}'])
def test_a_reply_of_another_kind_is_an_error(monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    with model_server([Line(body=body)]) as server:
        configure(monkeypatch, server.url, key=None)
        with pytest.raises(ModelError, match="The reply of http://127") as caught:
            ask()
    assert not isinstance(caught.value, ModelUnavailable)


def test_a_server_that_is_not_there_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with model_server([]) as server:
        url = server.url
    configure(monkeypatch, url)
    with pytest.raises(ModelUnavailable, match="cannot be reached"):
        ask()


def test_a_slow_server_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "TIMEOUT", 0.05)
    with model_server([Line(content="Late.", wait=0.3)]) as server:
        configure(monkeypatch, server.url)
        with pytest.raises(ModelUnavailable, match="did not answer in time"):
            ask()


def test_arguments_given_as_an_object_are_json_again(monkeypatch: pytest.MonkeyPatch) -> None:
    call = '{"choices": [{"message": {"tool_calls": [{"function": {"name": "x", "arguments": {"a": 1}}}]}}]}'
    with model_server([Line(body=call)]) as server:
        configure(monkeypatch, server.url)
        reply = ask()
    assert reply.calls[0].arguments == '{"a": 1}'
    assert reply.text == ""
