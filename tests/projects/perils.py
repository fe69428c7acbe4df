"""The project of the tests about dead letters: steps that kill, agents of several versions, tasks that come and go."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from agentq import AgentQ, Run
from agentq.core.errors import StepCondemned

app = AgentQ("perils")

VERSION = os.environ.get("PERILS_VERSION", "1")
CONTINUES = tuple(os.environ.get("PERILS_CONTINUES", "").split())


def note(path: str, word: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{word}\n")


@app.step
def kill(folder: str, whom: str) -> str:
    """End its process, or the whole worker, unless the folder says that the peril is over."""
    note(f"{folder}/starts", "start")
    if not Path(folder, "safe").exists():
        os.kill(os.getppid() if whom == "worker" else os.getpid(), signal.SIGKILL)
        signal.pause()
    return "alive"


@app.step
def quiet(word: str) -> str:
    return word


@app.task(name="plain", shared=False)
def plain(word: str) -> str:
    return word


@app.agent
async def daring(run: Run, folder: str, whom: str = "child") -> str:
    return await run.call(kill, folder, whom)


@app.agent
async def careful(run: Run, folder: str) -> str:
    try:
        return await run.call(kill, folder, "child")
    except StepCondemned as error:
        return f"gave up {error.step.rpartition('.')[2]}"


@app.agent(queue="aged", version=VERSION, continues=CONTINUES)
async def aged(run: Run) -> str:
    await run.wait_for("go")
    return str(run.version)


if os.environ.get("PERILS_NEW"):

    @app.step(name="newcomer")
    def newcomer(word: str) -> str:
        return word

    @app.task(name="plain_newcomer", shared=False)
    def plain_newcomer(word: str) -> str:
        return word
