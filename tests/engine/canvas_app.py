"""An app whose agents await canvases of every shape, with plain tasks, failures and replaced steps in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import chain, chord, group
from celery.canvas import Signature

from agentq import AgentQ, Run

app = AgentQ("canvas")


@app.step
def double(number: int) -> int:
    return 2 * number


@app.step
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.step
def bad(number: int) -> int:
    raise ValueError(f"bad {number}")


@app.celery.task
def plain_double(number: int) -> int:
    return 2 * number


@app.celery.task
def plain_bad(number: int) -> int:
    raise ValueError(f"plain {number}")


@app.step
def fan(number: int) -> int:
    """Replace itself by a chord: two doubles and their sum."""
    signature = group(double.s(number), double.s(number)) | total.s()
    return fan.replace(signature)


@app.step
def stumble(number: int) -> int:
    """Replace itself by a chain that fails before its end."""
    return stumble.replace(chain(bad.s(number), double.s()))


@app.step
def stumble_plain(number: int) -> int:
    """Replace itself by a chain in which a plain task fails."""
    return stumble_plain.replace(chain(double.s(number), plain_bad.s(), double.s()))


SHAPES: dict[str, Callable[[], Signature]] = {
    "chain": lambda: chain(double.s(1), double.s(), double.s()),
    "group": lambda: group(double.s(1), double.s(2)),
    "chord": lambda: chord([double.s(1), double.s(2)], total.s()),
    "nested": lambda: group(chain(double.s(1), double.s()), group(double.s(2), double.s(3))),
    "chord with a chain as its body": lambda: chord([double.s(1), double.s(2)], chain(total.s(), double.s())),
    "chain around a group": lambda: chain(group(double.s(1), double.s(2)), total.s(), double.s()),
    "plain task in a chain": lambda: chain(double.s(1), plain_double.s(), double.s()),
    "plain task in a chord": lambda: chord([plain_double.s(1), double.s(2)], total.s()),
    "replaced by a chord": lambda: chain(fan.s(1), double.s()),
    "failing chain": lambda: chain(double.s(1), bad.s(), double.s(), double.s()),
    "failing plain task in a chain": lambda: chain(double.s(1), plain_bad.s(), double.s(), double.s()),
    "failing group": lambda: group(double.s(1), bad.s(2)),
    "failing plain task in a group": lambda: group(double.s(1), plain_bad.s(2)),
    "failing chord with a chain as its body": lambda: chord([bad.s(1), double.s(2)], chain(total.s(), double.s())),
    "failing before a chord": lambda: chain(bad.s(1), double.s(), chord([double.s(), double.s()], total.s())),
    "failing replaced step": lambda: chain(stumble.s(1), double.s()),
}


def _told(error: BaseException) -> str:
    return str(error)


@app.agent
async def awaits(run: Run, shape: str) -> Any:
    """Await one canvas; a failure is returned in words."""
    try:
        (found,) = await run.gather(SHAPES[shape]())
    except Exception as error:
        return _told(error)
    return found


@app.agent
async def calls(run: Run, name: str) -> Any:
    """Call a step that replaces itself, alone and as members of a fan-out."""
    step = {"fan": fan, "stumble": stumble, "stumble_plain": stumble_plain}[name]
    try:
        alone = await run.call(step, 1)
    except Exception as error:
        alone = _told(error)  # type: ignore[assignment]
    try:
        return [alone, await run.map(step, [1, 2, 3])]
    except Exception as error:
        return [alone, _told(error)]


celery = app.celery
