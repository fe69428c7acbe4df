"""The floor: what the same Redis does for two plain loops of redis-py, with nothing made durable.

    python -m benchmarks.floor URL        one worker: takes a message, stores its result, until it is ended

A message is ``id|behind``: behind counts the tasks that follow it in its chain. A join is a counter.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import redis

QUEUE = "floor"
DONE = "floor:done"


def serve(url: str) -> None:
    """Serve the queue for ever: one round trip takes, one stores the result and sends what follows."""
    client: Any = redis.Redis.from_url(url, socket_timeout=None)
    while True:
        found = client.brpop(QUEUE)
        name, behind = found[1].decode().split("|")
        finish(client, name, int(behind))


def finish(client: Any, name: str, behind: int) -> None:
    """Store one result, and send the chain's next task or say that it has ended."""
    pipe = client.pipeline(transaction=False)
    pipe.set(f"floor:result:{name}", json.dumps({"status": "SUCCESS", "result": None, "task_id": name}), ex=86_400)
    pipe.lpush(*((QUEUE, f"{name}|{behind - 1}") if behind else (DONE, name)))
    pipe.execute()


if __name__ == "__main__":
    serve(sys.argv[1])
