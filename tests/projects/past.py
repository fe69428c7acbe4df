"""The project of the tests about what has been: history, forks and archive."""

from __future__ import annotations

import time
from pathlib import Path

from agentq import AgentQ, Run, this_step

app = AgentQ("past")


def wait_for(gate: Path) -> None:
    while not gate.exists():
        time.sleep(0.005)


@app.step
def speak(folder: str, words: int) -> int:
    """Emit the time of each word; word n waits for the file n of the folder."""
    for word in range(words):
        wait_for(Path(folder) / str(word))
        this_step.emit("word", number=word, said=time.time())
    return words


@app.step
def double(number: int) -> int:
    return 2 * number


@app.agent
async def doubled(run: Run, limit: int) -> list[int]:
    run.emit("began", limit=limit)
    if limit < 0:
        raise ValueError("the limit is below zero")
    return list(await run.map(double, list(range(limit))))


@app.agent
async def speech(run: Run, folder: str, words: int) -> int:
    return await run.call(speak, folder, words)
