"""The bench that the store's tests work on: an emptied server, brought to rest and checked after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.server import PrivateServer
from tests.store.bench import Bench


@pytest.fixture
def bench(clean_server: PrivateServer) -> Iterator[Bench]:
    """A store with two workers; at the end everything is where its record says, can end, and leaves no key behind."""
    made = Bench(clean_server)
    made.worker("w1")
    made.worker("w2")
    yield made
    found = made.look()
    assert found.misplaced({record["q"] for record in found.records().values()}) == []
    made.drain()
    made.store.close()
