"""The tests' own kit does what its names say."""

from __future__ import annotations

from tests.kit.leaks import leaked_keys
from tests.kit.server import PrivateServer


def test_data_survive_a_killed_server(server: PrivateServer) -> None:
    server.client.set("kept", "1", ex=60)
    assert server.client.config_set("appendfsync", "always")
    server.client.set("synced", "1", ex=60)
    server.restart()
    assert server.client.get("kept") == b"1"
    assert server.client.get("synced") == b"1"


def test_a_key_without_an_end_is_found(server: PrivateServer) -> None:
    server.client.set("ends", "1", ex=60)
    server.client.set("stays", "1")
    assert leaked_keys(server.client) == ["stays"]
    assert leaked_keys(server.client, allowed=["sta"]) == []
    server.client.delete("stays")
