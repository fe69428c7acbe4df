"""The floor: what the same Redis does for two plain loops of redis-py, with nothing made durable.

    python -m benchmarks.floor URL [async]      one worker: takes a message, stores its result, until it is ended

With ``async`` each message waits for a second first, and all that are there wait at once.

A message is ``id|behind``: behind counts the tasks that follow it in its chain. A join is a counter.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import redis
import redis.asyncio

QUEUE = "floor"
DONE = "floor:done"
ASLEEP = "floor:asleep"


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


async def serve_sleepers(url: str) -> None:
    """Serve the queue of those that wait, in one loop, for ever."""
    # A thousand end in the same moment: they take turns on a few connections.
    pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=20, timeout=None, socket_timeout=None)
    client: Any = redis.asyncio.Redis(connection_pool=pool)
    under_way = set()

    async def sleep(name: str) -> None:
        await asyncio.sleep(1.0)
        pipe = client.pipeline(transaction=False)
        pipe.set(f"floor:result:{name}", json.dumps({"status": "SUCCESS", "result": None, "task_id": name}), ex=86_400)
        pipe.lpush(DONE, name)
        await pipe.execute()

    while True:
        found = await client.brpop([ASLEEP])
        task = asyncio.create_task(sleep(found[1].decode().split("|")[0]))
        under_way.add(task)
        task.add_done_callback(under_way.discard)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        asyncio.run(serve_sleepers(sys.argv[1]))
    serve(sys.argv[1])
