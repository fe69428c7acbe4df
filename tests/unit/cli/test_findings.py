"""What the doctor says of a server, of workers and of the model."""

from __future__ import annotations

from typing import Any

import pytest

from agentq.cli.findings import (
    Finding,
    judge_archive,
    judge_broker,
    judge_eviction,
    judge_memory,
    judge_model,
    judge_persistence,
    judge_version,
    judge_workers,
    judge_writing,
)


@pytest.mark.parametrize(
    ("finding", "level", "words"),
    [
        (judge_version({"redis_version": "7.2.4"}), "ok", "Redis 7.2.4"),
        (judge_version({"redis_version": "7.2.4", "valkey_version": "9.1.0"}), "ok", "Valkey 9.1.0"),
        (judge_version({"redis_version": "6.2.0"}), "ok", "Redis 6.2.0"),
        (judge_version({"redis_version": "6.0.16"}), "bad", "Redis 6.0.16"),
        (judge_version({}), "bad", "unknown"),
        (judge_eviction("noeviction"), "ok", "noeviction"),
        (judge_eviction("allkeys-lru"), "bad", "allkeys-lru"),
        (judge_eviction(None), "warn", "cannot be read"),
        (judge_persistence("yes", "everysec"), "ok", "everysec"),
        (judge_persistence("yes", "no"), "warn", "appendfsync no"),
        (judge_persistence("no", "everysec"), "bad", "off"),
        (judge_persistence(None, None), "warn", "cannot be read"),
        (judge_writing({"role": "master", "aof_last_write_status": "ok"}), "ok", "taken"),
        (judge_writing({"aof_last_write_status": "err"}), "bad", "cannot write its append-only file"),
        (judge_writing({"role": "slave"}), "bad", "a replica"),
        (judge_broker("amqp://h//", None), "ok", "amqp://h//"),
        (judge_broker("amqp://h//", "refused"), "warn", "amqp://h//: refused"),
        (judge_memory({"used_memory": 2**20, "maxmemory": 0}), "ok", "1 MiB used, no limit set"),
        (judge_memory({"used_memory": 90 * 2**20, "maxmemory": 100 * 2**20}), "warn", "of 100 MiB"),
        (judge_archive(None, 0, 0.0, shared=True), "ok", "off"),
        (judge_archive("sqlite:////a.db", 3, 2.0, shared=False), "ok", "sqlite:////a.db"),
        (judge_archive("sqlite:////a.db", 0, 0.0, shared=True), "warn", "a file of this machine"),
        (judge_archive("postgresql://db/a", 0, 0.0, shared=True), "ok", "postgresql://db/a"),
        (judge_archive("postgresql://db/a", 3, 301.0, shared=True), "warn", "3 ended runs wait"),
        (judge_model("http://here", "m"), "ok", "m at http://here"),
        (judge_model("http://here", None), "warn", "only one of"),
        (judge_model(None, None), "ok", "none"),
    ],
)
def test_findings(finding: Finding, level: str, words: str) -> None:
    assert finding.level == level
    assert words in finding.words
    assert bool(finding.advice) == (level != "ok")


def test_a_pool_without_a_worker_is_told_with_the_command_that_helps() -> None:
    served, lacking = judge_workers(["tools", "gpu"], {"tools": ["tools-1@host"]})
    assert (served.level, served.words) == ("ok", "tools-1@host")
    assert lacking.level == "warn"
    assert "agentq worker --pool gpu" in lacking.advice


def test_findings_are_plain_data() -> None:
    shown: dict[str, Any] = vars(judge_eviction("noeviction"))
    assert shown == {"what": "maxmemory-policy", "level": "ok", "words": "noeviction", "advice": ""}
