"""The bench that the store's tests work on: an emptied server, brought to rest and checked after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.server import PrivateServer
from tests.store.bench import Bench, misplaced


@pytest.fixture
def bench(clean_server: PrivateServer) -> Iterator[Bench]:
    """A store with two workers; at the end everything is where its record says, can end, and leaves no key behind."""
    made = Bench(clean_server)
    made.worker("w1")
    made.worker("w2")
    yield made
    queues = {record["q"] for record in made.records().values()}
    assert misplaced(made, queues) == []
    made.drain()
    made.store.close()
