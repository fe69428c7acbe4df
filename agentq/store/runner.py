"""Loads the Lua scripts and calls them; must not know what they do.

A script's text is the key builders that ``keys.py`` renders, a few constants, the shared parts named on its
``include`` line, each behind those that it includes itself, and its own file.

Where the server has functions (Redis 7, Valkey) each script is one, in a library of its own: its parts are made once
and stay. Called by EVALSHA, as on an older server, all of them are made anew at each call and thrown away again, a
quarter of what a commit costs there.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Final

import redis

from agentq.store.keys import Keys

_INCLUDE = re.compile(r"^-- include:(.*)$", re.MULTILINE)

_ON_FULL = re.compile(r"^-- Full server: runs, ", re.MULTILINE)
"""In the head of a script that is called also where the server has no memory left; see ``_library``."""

_STEM: Final = "agentq"
_MONTHS_KEPT: Final = 3
"""A library that was loaded so long ago goes when another one is loaded; who still uses it loads it anew."""
_SCRIPTS = resources.files("agentq.store.scripts")

_BODY: Final = "CALL = {}\n"
"""Begins a script's own part: what the shared ones remember of one call must not outlive it."""

EVENT_LIMIT: Final = 100_000
"""Lines of history kept for a tree by default: at 150 bytes a line some 15 MB, which a fan-out of 30,000 fills."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How much the scripts bear of what goes wrong.

    Attributes:
        deaths: of a step alone in a row; the last one condemns it to the dead letters.
        suspect_ms: how long a suspect waits for an idle worker before one makes itself free for it.
        unknown_ms: how long a message waits for a worker that knows its task before it is a dead letter.
        age_ms: after so long a step goes first in what the lower lanes have of each worker.
    """

    deaths: int = 3
    suspect_ms: int = 30_000
    unknown_ms: int = 600_000
    age_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class Weights:
    """How many steps of a tenant go in one turn of it.

    Attributes:
        by_tenant: of tenants by name, each at least 1.
        others: of all others; the work without a tenant counts as one of them, of weight 1.
    """

    by_tenant: Mapping[str, int] = field(default_factory=dict)
    others: int = 1

    def lua(self) -> str:
        """Render them for the head of the scripts, by digest: a tenant's name is users' text."""
        entries = (
            f"['{hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()}'] = {int(weight)}"
            for name, weight in sorted(self.by_tenant.items())
        )
        return f"local WEIGHTS = {{ {', '.join(entries)} }}\nlocal WEIGHT_OF_OTHERS = {int(self.others)}\n"


class ScriptSet:
    """All scripts under one key prefix and retention, ready to be called on any client of the server."""

    def __init__(
        self,
        keys: Keys,
        *,
        retention_ms: int,
        event_limit: int = EVENT_LIMIT,
        split: bool = False,
        archives: bool = False,
        patience: Patience | None = None,
        weights: Weights | None = None,
    ) -> None:
        patience = patience if patience is not None else Patience()
        flags = {"SPLIT": split, "ARCHIVES": archives}
        numbers = {
            "RETENTION_MS": retention_ms,
            "EVENT_LIMIT": event_limit,
            "DEATH_LIMIT": patience.deaths,
            "SUSPECT_MS": patience.suspect_ms,
            "UNKNOWN_MS": patience.unknown_ms,
            "AGE_MS": patience.age_ms,
        }
        constants = {**numbers, **{name: str(flag).lower() for name, flag in flags.items()}}
        # Declared in front of all parts, so that each can put something into it.
        head = "local CALL\n" + "".join(f"local {name} = {value}\n" for name, value in constants.items()) + keys.lua()
        turns = (weights if weights is not None else Weights()).lua()
        self.texts: dict[str, str] = {}
        self.hashes: dict[str, str] = {}
        self._by_function = True
        for name, (parts, body) in _sources().items():
            # Thousands of weights go to the server once for each script that has use for them.
            text = head + (turns if "turns" in parts else "") + "\n".join([*parts.values(), _BODY + body])
            self.texts[name] = text
            self.hashes[name] = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def load(self, client: Any) -> None:
        """Make every script known to the server: a new one, or one that has lost its data, knows none."""
        if self._by_function and not self._load_functions(client):
            self._by_function = False
        if not self._by_function:
            with client.pipeline(transaction=False) as pipe:
                for text in self.texts.values():
                    pipe.script_load(text)
                pipe.execute()

    def _load_functions(self, client: Any) -> bool:
        """Load what is not there yet, and drop what is old; False on a server that has no functions for us."""
        month = _month()
        with client.pipeline(transaction=False) as pipe:
            for name in self.texts:
                pipe.execute_command("FUNCTION", "LOAD", self._library(name, month))
            replies = pipe.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, Exception) and not str(reply).rstrip(".").endswith("already exists"):
                # A full server takes no functions, and yet scripts: somebody has to come who makes room.
                if _is_without_functions(reply) or isinstance(reply, redis.exceptions.OutOfMemoryError):
                    return False
                raise reply
        for library in client.function_list(library=f"{_STEM}_*"):
            _drop_if_old(client, library, month)
        return True

    def _library(self, name: str, month: int) -> str:
        """Return the text of the library that a script is, named by the month in which it is loaded.

        A function that has not said so does not even begin where the server has no memory left. A script would, and be
        stopped at its first command that needs memory, unless one that frees some came before it.
        """
        parts, separator, body = self.texts[name].partition(_BODY)
        flags = ", flags = { 'allow-oom' }" if _ON_FULL.search(body) else ""
        return (
            f"#!lua name={_STEM}_{month}_{name}_{self.hashes[name]}\n{parts}\n"
            f"redis.register_function{{ function_name = '{self._function(name)}', callback = function(_, ARGV)\n"
            f"{separator}{body}\nend{flags} }}\n"
        )

    def _function(self, name: str) -> str:
        return f"{_STEM}_{name}_{self.hashes[name]}"

    def command(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """Return the command that calls a script, for connections that the caller reads by himself."""
        if self._by_function:
            return ("FCALL", self._function(name), 0, *arguments)
        return ("EVALSHA", self.hashes[name], 0, *arguments)

    def is_unknown(self, error: Exception) -> bool:
        """Tell whether the server does not know the script, so that nothing of the call has run, and ``load`` helps."""
        if isinstance(error, redis.exceptions.NoScriptError):
            return True
        # Also after another thread has learnt that there are no functions: this call was on its way then.
        return str(error).startswith("Function not found") or _is_without_functions(error)

    def call(self, client: Any, name: str, *arguments: Any) -> Any:
        """Call a script; loads all of them and repeats when the server does not know it."""
        try:
            return client.execute_command(*self.command(name, *arguments))
        except redis.ResponseError as error:
            if not self.is_unknown(error):
                raise
        self.load(client)
        return client.execute_command(*self.command(name, *arguments))


def _is_without_functions(error: Exception) -> bool:
    """Tell whether the server is older than its functions, or its user may not call them."""
    text = str(error).lower()
    return text.startswith("unknown command") or (
        "no permissions" in text and ("'fcall" in text or "'function" in text)
    )


def _month() -> int:
    now = time.gmtime()
    return now.tm_year * 12 + now.tm_mon


def _drop_if_old(client: Any, library: Any, month: int) -> None:
    """Drop a library of ours that nobody has loaded for months; two that do so at once do not disturb each other."""
    fields = dict(zip(library[::2], library[1::2], strict=True)) if isinstance(library, list) else library
    found = {_text(name): value for name, value in fields.items()}
    name = _text(found["library_name"])
    named = re.fullmatch(rf"{_STEM}_(\d+)_\w+_[0-9a-f]{{40}}", name)
    if named is not None and int(named[1]) <= month - _MONTHS_KEPT:
        with suppress(redis.ResponseError):
            client.function_delete(name)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


@cache
def _sources() -> dict[str, tuple[dict[str, str], str]]:
    """Return each script's parts and its own text; read once, since a process may open many stores."""
    found = {}
    for source in _SCRIPTS.iterdir():
        if source.name.endswith(".lua"):
            body = source.read_text(encoding="utf-8")
            found[source.name.removesuffix(".lua")] = _parts_of(body), body
    return found


def _parts_of(body: str) -> dict[str, str]:
    """Return the texts of all parts that a script needs by their names, each one behind what it needs."""
    parts: dict[str, str] = {}
    for name in included(body):
        text = _part(name)
        parts = {**parts, **{needed: part for needed, part in _parts_of(text).items() if needed not in parts}}
        parts.setdefault(name, text)
    return parts


@cache
def _part(name: str) -> str:
    return _SCRIPTS.joinpath("lib", f"{name}.lua").read_text(encoding="utf-8")


def included(body: str) -> list[str]:
    """Return the names on a script's ``include`` line, in order."""
    found = _INCLUDE.search(body)
    return found.group(1).split() if found is not None else []
