"""Whether a server, its workers and its archive are well: pure rules over what `agentq doctor` has gathered.

Each finding says what stands, and, unless it is fine, what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentq.core.models import Unserved

LOWEST_SERVER = (6, 2)
"""The oldest server whose commands the scripts use."""

ARCHIVE_LATE_S = 300
"""Ended runs are copied within seconds; after so long something is wrong, or no worker runs."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    level: Literal["ok", "warn", "bad"]
    words: str
    advice: str = ""
    """What to do; empty when nothing is to be done."""


def decide_version(server: Mapping[str, Any]) -> Finding:
    """Whether the server is new enough."""
    name = "Valkey" if server.get("valkey_version") else str(server.get("server_name") or "Redis")
    version = str(server.get("valkey_version") or server.get("redis_version") or "unknown")
    numbers = tuple(int(part) for part in str(server.get("redis_version", "0")).split(".")[:2] if part.isdigit())
    if numbers >= LOWEST_SERVER:
        return Finding("server version", "ok", f"{name} {version}")
    return Finding(
        "server version",
        "bad",
        f"{name} {version}",
        "Needs Redis 6.2 or newer, or Valkey. Upgrade it, or leave redis_url out to use a private one.",
    )


def decide_eviction(policy: str | None) -> Finding:
    """Whether the server may throw keys away."""
    if policy is None:
        return Finding(
            "maxmemory-policy",
            "warn",
            "cannot be read (CONFIG is not allowed)",
            "Ask who runs the server that it is noeviction.",
        )
    if policy == "noeviction":
        return Finding("maxmemory-policy", "ok", policy)
    return Finding(
        "maxmemory-policy",
        "bad",
        policy,
        "The server may delete runs when memory is short: CONFIG SET maxmemory-policy noeviction.",
    )


def decide_persistence(appendonly: str | None, fsync: str | None) -> Finding:
    """Whether what is written survives the server's end."""
    if appendonly is None:
        return Finding(
            "append-only file",
            "warn",
            "cannot be read (CONFIG is not allowed)",
            "Ask who runs the server that appendonly is yes.",
        )
    if appendonly != "yes":
        return Finding(
            "append-only file",
            "bad",
            "off",
            "A restart of the server loses runs: CONFIG SET appendonly yes, and in its configuration file.",
        )
    if fsync == "no":
        return Finding(
            "append-only file",
            "warn",
            "on, appendfsync no",
            "A power loss may take more than a second: CONFIG SET appendfsync everysec.",
        )
    return Finding("append-only file", "ok", f"on, appendfsync {fsync}")


def decide_writing(server: Mapping[str, Any]) -> Finding:
    """Whether the server takes writes at all."""
    if server.get("role") == "slave":
        return Finding("writes", "bad", "refused: this server is a replica", "Name the primary in AGENTQ_REDIS_URL.")
    if server.get("aof_last_write_status") == "err":
        return Finding(
            "writes",
            "bad",
            "refused: the server cannot write its append-only file",
            "Give its disk room: workers wait meanwhile, and go on by themselves.",
        )
    return Finding("writes", "ok", "taken")


def decide_memory(server: Mapping[str, Any]) -> Finding:
    """Whether the server comes near its own limit."""
    used, limit = int(server.get("used_memory", 0)), int(server.get("maxmemory", 0))
    words = f"{used / 2**20:.0f} MiB used" + (f" of {limit / 2**20:.0f} MiB" if limit else ", no limit set")
    if limit and used > 0.8 * limit:
        return Finding("memory", "warn", words, "Starts will be refused when it is full: raise maxmemory.")
    return Finding("memory", "ok", words)


def decide_broker(where: str, error: str | None) -> Finding:
    """Whether the broker beside the store can be reached; ``error``: why not."""
    if error is None:
        return Finding("broker", "ok", where)
    return Finding(
        "broker", "warn", f"{where}: {error}", "Steps wait until it is back: start it, or correct AGENTQ_BROKER_URL."
    )


def decide_archive(url: str | None, waiting: int, seconds: float, *, shared: bool) -> Finding:
    """Whether ended runs reach their archive; ``shared``: other machines may use the server too."""
    if url is None:
        return Finding("archive", "ok", "off: ended runs are gone after their retention")
    if waiting and seconds > ARCHIVE_LATE_S:
        return Finding(
            "archive",
            "warn",
            f"{url}: {waiting} ended runs wait for it, the first for {seconds:.0f} s",
            'Look for "archive_waits" or "archive_failed" in the workers\' logs. Nothing is lost: their keys stay.',
        )
    if shared and url.startswith("sqlite:"):
        return Finding(
            "archive",
            "warn",
            f"{url}, a file of this machine",
            "Workers on other machines have files of their own: name one database for all in AGENTQ_ARCHIVE, or off.",
        )
    return Finding("archive", "ok", url)


def decide_workers(
    pools: Iterable[str], served: Mapping[str, list[str]], unserved: Iterable[Unserved] = ()
) -> list[Finding]:
    """Whether each pool has a worker; ``decide_unserved`` tells of one whose steps wait for any."""
    findings = []
    told = {each.queue for each in unserved if each.lacks == "worker"}
    for name in pools:
        labels = served.get(name, [])
        if labels:
            findings.append(Finding(f"pool {name}", "ok", ", ".join(labels)))
        elif name not in told:
            findings.append(
                Finding(
                    f"pool {name}",
                    "warn",
                    "no worker",
                    f"Its steps wait: agentq worker --pool {name}, or agentq up for all pools.",
                )
            )
    return findings


def decide_idle_workers(whys: Mapping[str, str], drained: Iterable[str]) -> list[Finding]:
    """Which workers take nothing, by their label and the reason; and which machines and pools are drained."""
    findings = [
        Finding(
            f"worker {label}",
            "warn",
            f"takes nothing: {why}",
            "It takes work again by itself once that is over; a drained one after agentq drain … --undo.",
        )
        for label, why in whys.items()
    ]
    for mark in drained:
        kind, _, name = mark.partition("|")
        if kind != "worker":
            advice = f"Its steps go elsewhere, or wait: agentq drain {kind}:{name} --undo"
            findings.append(Finding(f"{kind} {name}", "warn", "drained", advice))
    return findings


def decide_letters(letters: int) -> Finding:
    """Whether anything waits for a person among the dead letters."""
    if not letters:
        return Finding("dead letters", "ok", "none")
    return Finding(
        "dead letters",
        "warn",
        f"{letters}",
        "Their runs wait for you: agentq dead list, then agentq dead replay or agentq dead drop.",
    )


def decide_suspects(suspects: Mapping[str, int]) -> list[Finding]:
    """Which queues have steps that must run alone, since their last attempt died."""
    return [
        Finding(
            f"suspects {queue}",
            "warn",
            f"{number} whose last attempt died with its worker",
            "Each runs alone in an idle worker. If workers die again and again, look into their logs and memory.",
        )
        for queue, number in suspects.items()
        if number
    ]


def decide_unserved(unserved: Iterable[Unserved]) -> list[Finding]:
    """Which steps and runs no worker can run, by what they lack."""
    groups: dict[tuple[str, str | None, str], int] = {}
    for each in unserved:
        known = (each.name, each.version if each.lacks == "version" else None, each.lacks)
        if each.lacks == "worker":
            known = (each.queue, None, each.lacks)
        groups[known] = groups.get(known, 0) + 1
    return [_unserved(name, version, lacks, number) for (name, version, lacks), number in groups.items()]


def _unserved(name: str, version: str | None, lacks: str, number: int) -> Finding:
    waiting = "1 waits" if number == 1 else f"{number} wait"
    if lacks == "version":
        advice = (
            f"Start a worker with that version, or declare continues=[{version!r}] on the newer one; "
            "agentq runs cancel gives a run up."
        )
        return Finding(f"agent {name}", "warn", f"{waiting} for version {version}, which no worker serves", advice)
    if lacks == "worker":
        words, advice = f"{waiting} for a worker in it: unschedulable", f"agentq worker --pool {name}"
        return Finding(f"pool {name}", "warn", words, f"Start one: {advice}.")
    advice = "Start a worker that has its code; after a while it becomes a dead letter (AGENTQ_UNKNOWN_TASK_GRACE)."
    return Finding(f"task {name}", "warn", f"{waiting} for a worker that knows it", advice)


def decide_model(url: str | None, name: str | None) -> Finding:
    """Whether the shipped agents have a model to ask."""
    if url and name:
        return Finding("model", "ok", f"{name} at {url}")
    if url or name:
        return Finding(
            "model",
            "warn",
            "only one of AGENTQ_MODEL_URL and AGENTQ_MODEL_NAME is set",
            "Set both, or none: without a model the shipped agents search and quote.",
        )
    return Finding("model", "ok", "none: the shipped research agent searches and quotes")
