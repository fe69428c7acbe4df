"""Loads the Lua scripts and calls them by hash; must not know what they do.

A script's text is the key builders that ``keys.py`` renders, a few constants, the shared parts named on its
``include`` line, each behind those that it includes itself, and its own file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Final

import redis

from agentq.store.keys import Keys

NoScriptError: Final = redis.exceptions.NoScriptError
"""The server does not know a script, as after its restart; nothing of the call has run."""

_INCLUDE = re.compile(r"^-- include:(.*)$", re.MULTILINE)
_SCRIPTS = resources.files("agentq.store.scripts")

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
        head = "".join(f"local {name} = {value}\n" for name, value in constants.items()) + keys.lua()
        turns = (weights if weights is not None else Weights()).lua()
        self.texts: dict[str, str] = {}
        self.hashes: dict[str, str] = {}
        for name, (parts, body) in _sources().items():
            # Thousands of weights go to the server once for each script that has use for them.
            text = head + (turns if "turns" in parts else "") + "\n".join([*parts.values(), body])
            self.texts[name] = text
            self.hashes[name] = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def load(self, client: redis.Redis) -> None:
        """Put every script into the server's cache; a restarted server has forgotten them."""
        with client.pipeline(transaction=False) as pipe:
            for text in self.texts.values():
                pipe.script_load(text)
            pipe.execute()

    def command(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """Return the command that calls a script, for connections that the caller reads by himself."""
        return ("EVALSHA", self.hashes[name], 0, *arguments)

    def call(self, client: redis.Redis, name: str, *arguments: Any) -> Any:
        """Call a script; loads all of them and repeats when the server does not know it.

        Safe to repeat after NOSCRIPT: nothing of the script has run.
        """
        try:
            return client.evalsha(self.hashes[name], 0, *arguments)
        except NoScriptError:
            self.load(client)
            return client.evalsha(self.hashes[name], 0, *arguments)


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
