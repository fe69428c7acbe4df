"""An unknown kombu gets the stock transport, and says so."""

from __future__ import annotations

import logging

import kombu
import pytest

from agentq.engine import mode
from agentq.engine.versions import is_kombu_tried


@pytest.mark.parametrize(
    ("version", "tried"),
    [("5.7.0", True), ("5.7.3", True), ("5.8.0", False), ("6.0.0rc1", False), ("5.6.2", True), ("5.5.4", False)],
)
def test_only_tried_versions_get_agentqs_transport(version: str, tried: bool) -> None:
    assert is_kombu_tried.__wrapped__(version) is tried


def test_the_installed_one_was_tried() -> None:
    assert is_kombu_tried.__wrapped__(kombu.__version__)


def test_an_unknown_one_is_named_and_served_by_kombus_own_transport(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mode, "is_kombu_tried", lambda: is_kombu_tried.__wrapped__("5.8.1"))
    with caplog.at_level(logging.WARNING):
        assert mode.decide_mode("auto", "redis://host") == "split"
    assert "kombu_unknown version=5.8.1" in caplog.text
    assert mode.decide_mode("fused", "redis://host") == "fused"
