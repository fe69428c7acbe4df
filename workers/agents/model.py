"""The one client for an OpenAI-compatible model, which all agents share.

Owns the request, what a reply is and the errors. A call is made once: trying again is the step's `Retry`, and
the step's idempotency key tells the server that it is the same call. The key never reaches a log, a message
or a `repr`.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import httpx
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from agentq import this_step
from agentq.settings import Settings

TIMEOUT = httpx.Timeout(150, connect=10)
"""A long answer may take minutes; a server that is there answers a connection at once."""
logging.getLogger("httpx").setLevel(logging.WARNING)  # below, it logs whole addresses, and some hold a token
_SHOWN = 300
"""Characters of a server's error that a message quotes."""
_LATER = frozenset({408, 409, 425, 429})
"""Statuses below 500 after which the same request may succeed."""


class ModelError(Exception):
    """The model refused the call, or its reply is not what the protocol says: trying again does not help."""


class ModelUnavailable(ModelError):
    """The model did not answer, or asks to be called later."""


class Endpoint(NamedTuple):
    """Where the model is, and what it is called there."""

    url: SecretStr
    """The base, as in `https://host/v1`; it may hold a user and a password."""
    name: str
    key: SecretStr | None

    @property
    def shown(self) -> str:
        """The address without user, password and query: for people and logs."""
        url = httpx.URL(self.url.get_secret_value())
        port = f":{url.port}" if url.port is not None else ""
        return f"{url.scheme}://{url.host}{port}{url.path}"


class ToolCall(BaseModel):
    """A tool that the model wants called."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str
    arguments: str
    """JSON as the model wrote it: it may be wrong."""


class Reply(BaseModel):
    """What the model said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    calls: list[ToolCall] = []
    message: dict[str, Any]
    """The message to put into the conversation, so that the next call goes on from it."""


class _Function(BaseModel):
    name: str
    arguments: str | dict[str, Any] | None = None


class _Call(BaseModel):
    id: str | None = None
    function: _Function


class _Message(BaseModel):
    content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(BaseModel):
    message: _Message


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None


def configured() -> Endpoint | None:
    """The model of the settings (AGENTQ_MODEL_URL, _NAME and _KEY, or their file); None without the first two."""
    settings = Settings.load()
    url = settings.model_url.get_secret_value().strip() if settings.model_url is not None else ""
    name = (settings.model_name or "").strip()
    return Endpoint(SecretStr(url), name, settings.model_key) if url and name else None


def configured_name() -> str | None:
    """The model's name, or None where no model is configured."""
    endpoint = configured()
    return None if endpoint is None else endpoint.name


async def chat(
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    temperature: float = 0.0,
    endpoint: Endpoint | None = None,
) -> Reply:
    """The model's next message; its tokens are spent on this step.

    Raises ModelUnavailable where a later try may succeed, else ModelError.
    """
    endpoint = configured() if endpoint is None else endpoint
    if endpoint is None:
        raise ModelError("No model is configured: set AGENTQ_MODEL_URL and AGENTQ_MODEL_NAME for the workers.")
    body: dict[str, Any] = {"model": endpoint.name, "messages": list(messages), "temperature": temperature}
    if tools:
        body["tools"] = list(tools)
    completion = _completion(endpoint, await _post(endpoint, body))
    if completion.usage is not None:
        used = completion.usage
        this_step.spend(tokens_in=used.prompt_tokens, tokens_out=used.completion_tokens, model=endpoint.name)
    return _reply(completion.choices[0].message)


async def _post(endpoint: Endpoint, body: Mapping[str, Any]) -> httpx.Response:
    url = httpx.URL(endpoint.url.get_secret_value())
    user = (url.username, url.password) if url.username else None  # httpx logs the address of each request
    path = url.path.rstrip("/")
    url = url.copy_with(username=None, password=None, path=path.removesuffix("/chat/completions") + "/chat/completions")
    headers = {"Idempotency-Key": this_step.idempotency_key} if this_step.idempotency_key else {}
    if endpoint.key is not None:
        headers["Authorization"] = f"Bearer {endpoint.key.get_secret_value()}"
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT, auth=user) as client:
            response = await client.post(url, json=body, headers=headers)
    except httpx.TimeoutException as problem:
        raise ModelUnavailable(f"The model at {endpoint.shown} did not answer in time.") from problem
    except httpx.HTTPError as problem:
        raise ModelUnavailable(
            f"The model at {endpoint.shown} cannot be reached: {_hidden(endpoint, problem)}."
        ) from problem
    if response.is_success:
        return response
    later = response.status_code in _LATER or response.status_code >= 500
    said = _hidden(endpoint, response.text[:_SHOWN].strip() or "nothing more")
    message = f"The model {endpoint.name!r} at {endpoint.shown} answered with status {response.status_code}: {said}"
    raise (ModelUnavailable if later else ModelError)(message)


def _hidden(endpoint: Endpoint, said: object) -> str:
    """What a server or library said, without the key, which some servers repeat."""
    text = str(said) or type(said).__name__
    return text.replace(endpoint.key.get_secret_value(), "***") if endpoint.key is not None else text


def _completion(endpoint: Endpoint, response: httpx.Response) -> _Completion:
    try:
        completion = _Completion.model_validate_json(response.content)
    except ValidationError as problem:
        first = problem.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "the whole"
        raise ModelError(
            f"The reply of {endpoint.shown} is not an OpenAI-compatible completion: {place}: {first['msg']}"
        ) from None  # the cause would carry the whole reply
    if not completion.choices:
        raise ModelError(f"The reply of {endpoint.shown} holds no choice.")
    return completion


def _reply(message: _Message) -> Reply:
    calls: list[ToolCall] = []
    for number, call in enumerate(message.tool_calls or []):
        given = call.function.arguments
        arguments = given if isinstance(given, str) else _dumped(given)
        calls.append(ToolCall(id=call.id or f"call_{number}", name=call.function.name, arguments=arguments))
    said: dict[str, Any] = {"role": "assistant", "content": message.content}
    if calls:
        said["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in calls
        ]
    return Reply(text=message.content or "", calls=calls, message=said)


def _dumped(given: Mapping[str, Any] | None) -> str:
    return json.dumps(given or {})
