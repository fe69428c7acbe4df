"""What the doctor says of a server, of workers and of the model."""

from __future__ import annotations

from typing import Any

import pytest

from agentq.core.health import (
    Finding,
    decide_archive,
    decide_broker,
    decide_eviction,
    decide_memory,
    decide_model,
    decide_persistence,
    decide_unserved,
    decide_version,
    decide_workers,
    decide_writing,
)
from agentq.core.models import Unserved


@pytest.mark.parametrize(
    ("finding", "level", "words"),
    [
        (decide_version({"redis_version": "7.2.4"}), "ok", "Redis 7.2.4"),
        (decide_version({"redis_version": "7.2.4", "valkey_version": "9.1.0"}), "ok", "Valkey 9.1.0"),
        (decide_version({"redis_version": "6.2.0"}), "ok", "Redis 6.2.0"),
        (decide_version({"redis_version": "6.0.16"}), "bad", "Redis 6.0.16"),
        (decide_version({}), "bad", "unknown"),
        (decide_eviction("noeviction"), "ok", "noeviction"),
        (decide_eviction("allkeys-lru"), "bad", "allkeys-lru"),
        (decide_eviction(None), "warn", "cannot be read"),
        (decide_persistence("yes", "everysec"), "ok", "everysec"),
        (decide_persistence("yes", "no"), "warn", "appendfsync no"),
        (decide_persistence("no", "everysec"), "bad", "off"),
        (decide_persistence(None, None), "warn", "cannot be read"),
        (decide_writing({"role": "master", "aof_last_write_status": "ok"}), "ok", "taken"),
        (decide_writing({"aof_last_write_status": "err"}), "bad", "cannot write its append-only file"),
        (decide_writing({"role": "slave"}), "bad", "a replica"),
        (decide_broker("amqp://h//", None), "ok", "amqp://h//"),
        (decide_broker("amqp://h//", "refused"), "warn", "amqp://h//: refused"),
        (decide_memory({"used_memory": 2**20, "maxmemory": 0}), "ok", "1 MiB used, no limit set"),
        (decide_memory({"used_memory": 90 * 2**20, "maxmemory": 100 * 2**20}), "warn", "of 100 MiB"),
        (decide_archive(None, 0, 0.0, shared=True), "ok", "off"),
        (decide_archive("sqlite:////a.db", 3, 2.0, shared=False), "ok", "sqlite:////a.db"),
        (decide_archive("sqlite:////a.db", 0, 0.0, shared=True), "warn", "a file of this machine"),
        (decide_archive("postgresql://db/a", 0, 0.0, shared=True), "ok", "postgresql://db/a"),
        (decide_archive("postgresql://db/a", 3, 301.0, shared=True), "warn", "3 ended runs wait"),
        (decide_model("http://here", "m"), "ok", "m at http://here"),
        (decide_model("http://here", None), "warn", "only one of"),
        (decide_model(None, None), "ok", "none"),
    ],
)
def test_findings(finding: Finding, level: str, words: str) -> None:
    assert finding.level == level
    assert words in finding.words
    assert bool(finding.advice) == (level != "ok")


def test_a_pool_without_a_worker_is_told_with_the_command_that_helps() -> None:
    served, lacking = decide_workers(["tools", "gpu"], {"tools": ["tools-1@host"]})
    assert (served.level, served.words) == ("ok", "tools-1@host")
    assert lacking.level == "warn"
    assert "agentq worker --pool gpu" in lacking.advice


def test_a_pool_whose_steps_wait_for_a_worker_is_told_once() -> None:
    waits = Unserved(root_id="r", run_id="r", step_id="s", name="sum", queue="gpu", lacks="worker", words="")
    assert decide_workers(["gpu"], {}, [waits]) == []
    (told,) = decide_unserved([waits])
    assert (told.what, told.words) == ("pool gpu", "1 waits for a worker in it: unschedulable")


def test_findings_are_plain_data() -> None:
    shown: dict[str, Any] = vars(decide_eviction("noeviction"))
    assert shown == {"what": "maxmemory-policy", "level": "ok", "words": "noeviction", "advice": ""}
