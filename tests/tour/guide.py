"""The agents that the tour shows; a worker process serves them."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from pydantic import BaseModel

from agentq import AgentQ, Budget, Retry, Run, this_step

app = AgentQ("guide")


class Note(BaseModel):
    """A value of the application's own."""

    title: str
    words: int


@app.step
def count_words(text: str) -> int:
    return len(text.split())


@app.step
def summarise(title: str, counts: list[int]) -> Note:
    return Note(title=title, words=sum(counts))


@app.step
async def fetch(name: str) -> str:
    await asyncio.sleep(0.01)
    return f"text of {name}"


@app.step
def repeat(word: str, times: int) -> str:
    return " ".join([word] * times)


@app.step
def split(text: str) -> list[str]:
    return text.split(". ")


@app.agent(version="1")
async def study(run: Run, title: str, texts: list[str]) -> Note:
    counts = await run.map(count_words, texts)
    return await run.call(summarise, title, list(counts))


@app.agent(version="1")
async def unpack(run: Run) -> list[str]:
    return list(await run.starmap(repeat, [("a", 1), ("b", 2), ("c", 3)]))


@app.agent(version="1")
async def at_once(run: Run, names: list[str]) -> list[str]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run.call(fetch, name)) for name in names]
    return [task.result() for task in tasks]


@app.agent(version="1")
async def gathered(run: Run) -> list[object]:
    return list(await run.gather(count_words.s("one two"), run.call(count_words, "one")))


@app.agent(version="1")
async def in_place(run: Run, text: str) -> str:
    def shout(said: str) -> str:
        return said.upper()

    return await run.local(shout, text)


@app.agent(version="1")
async def two_times(run: Run, pause: timedelta) -> tuple[datetime, datetime]:
    before = run.now()
    await run.sleep(pause)
    return before, run.now()


@app.agent(version="1")
async def dice(run: Run, throws: int) -> list[int]:
    rolled = []
    for _ in range(throws):
        rolled.append(run.random.randrange(1, 7))
        await run.sleep(timedelta(milliseconds=1))
    return rolled


@app.agent(version="1")
async def greeter(run: Run) -> str:
    name = await run.wait_for("name", str)
    return f"Hello {name}"


@app.agent(version="1")
async def patient(run: Run) -> str:
    try:
        async with asyncio.timeout(0.2):
            return await run.wait_for("never", str)
    except TimeoutError:
        return "nobody came"


@app.agent(version="1")
async def publish(run: Run, title: str) -> bool:
    return await run.ask(f"Publish {title}?", bool, timeout=timedelta(days=3), default=False)


@app.agent(version="1")
async def unanswered(run: Run) -> bool:
    return await run.ask("Anyone?", bool, timeout=timedelta(seconds=0.2), default=False)


@app.agent(version="1")
async def narrator(run: Run) -> None:
    run.emit("chapter", number=1)
    await run.call(count_words, "once upon a time")
    run.emit("chapter", number=2)


@app.agent(version="1")
async def editor(run: Run, title: str) -> int:
    note = await run.call(study, title, ["one two", "three"])
    return note.words


@app.agent(version="1")
async def founder(run: Run) -> str:
    child = await run.spawn(study, "spawned", ["one"])
    return child.id


@app.agent(version="1")
async def countdown(run: Run, number: int) -> str:
    await run.call(count_words, "tick")
    if number > 0:
        run.continue_as_new(number - 1)
    return "lift-off"


@app.step(retry=Retry(attempts=3, wait=timedelta(milliseconds=10)))
def shaky(file: str) -> int:
    with open(file, "a+") as tries:
        tries.write("x")
        tries.seek(0)
        made = len(tries.read())
    if made < 3:
        raise ConnectionError("not yet")
    return made


@app.agent(version="1")
async def persistent(run: Run, file: str) -> int:
    return await run.call(shaky, file)


@app.step
def explode(reason: str) -> None:
    raise ValueError(reason)


@app.agent(version="1")
async def doomed(run: Run, reason: str) -> None:
    await run.call(explode, reason)


def withdraw(file: str) -> None:
    """Undo ``reserve``: it is called with the step's own arguments."""
    with open(file, "a") as ledger:
        ledger.write("withdrawn\n")


@app.step(undo=withdraw)
def reserve(file: str) -> None:
    with open(file, "a") as ledger:
        ledger.write("reserved\n")


@app.agent(version="1")
async def regretful(run: Run, file: str) -> None:
    await run.call(reserve, file)
    await run.call(explode, "second thoughts")


@app.step
def think(tokens: int) -> int:
    this_step.spend(tokens_in=tokens, tokens_out=1, model="m")
    return tokens


@app.agent(version="1", budget=Budget(steps=3))
async def frugal(run: Run, calls: int) -> int:
    for number in range(calls):
        await run.call(think, number)
    return calls
