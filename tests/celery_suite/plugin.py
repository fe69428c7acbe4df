"""A pytest plugin for Celery's integration tests: gives their apps agentq, and leaves out what is deselected."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import celery.contrib.testing.app as testing
import pytest

import agentq
from agentq.settings import Settings

LEFT_OUT: dict[str, str] = {
    f"{file}::{test}" if test != "*" else file: reason
    for file, tests in tomllib.loads(Path(__file__).with_name("deselected.toml").read_text()).items()
    for test, reason in tests.items()
}
"""Reason by the beginning of a test's id within ``t/integration``."""

STOCK = bool(os.environ.get("AGENTQ_TEST_STOCK"))

_make_plain = testing.TestApp


def _make_app(*args: Any, **options: Any) -> Any:
    app = _make_plain(*args, **options)
    if str((options.get("config") or {}).get("broker_url", "")).startswith("redis"):
        agentq.install(app, settings=Settings.load())
    return app


if not STOCK:
    testing.TestApp = _make_app


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave whole files out before they are imported: some need packages that are not here."""
    return True if not STOCK and collection_path.name in LEFT_OUT else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave single tests out; an entry that names none any more is an error when the whole suite was collected."""
    if STOCK:
        return
    named = {item: item.nodeid.removeprefix("t/integration/") for item in items}
    used = {entry for entry in LEFT_OUT for name in named.values() if name.startswith(entry)}
    gone = [item for item, name in named.items() if any(name.startswith(entry) for entry in used)]
    config.hook.pytest_deselected(items=gone)
    items[:] = [item for item in items if item not in gone]
    unused = {entry for entry in LEFT_OUT if "::" in entry} - used
    if unused and config.args == ["t/integration"] and not config.option.keyword:
        raise pytest.UsageError(f"deselected.toml names tests that are not there: {sorted(unused)}")


_failed: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note which tests have failed."""
    if report.failed and report.nodeid not in _failed:
        _failed.append(report.nodeid)


def pytest_sessionfinish() -> None:
    """Leave their names to the command, which tries them again."""
    if path := os.environ.get("CELERY_SUITE_FAILED"):
        Path(path).write_text("\n".join(_failed))
