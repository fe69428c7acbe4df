"""Plans for machines as a table, and what follows from them in words."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from agentq.core.planning import Shape
from agentq.fleet.planning import Plan, Tried


def plan_table(plan: Plan) -> Table:
    """For each pair of shapes its best mix, the chosen one first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    table.add_column("mix")
    table.add_column("cost of an hour", justify="right")
    table.add_column("in time", justify="right")
    table.add_column("p95 wait", justify="right")
    table.add_column("at most", justify="right")
    table.add_column("lost with one", justify="right")
    for each in plan.of_each_pair:
        style = "bold" if each is plan.chosen else "" if each.meets else "dim"
        table.add_row(*(Text(cell, style=style) for cell in _cells(each)))
    table.caption = (
        f"in time: share of the steps that start within {plan.slo_s:g} s; 95 % are asked for. at most: machines that "
        "came and went, at once. lost with one: slots."
    )
    return table


def plan_words(plan: Plan, shapes: Sequence[Shape]) -> list[str]:
    """What to do, many small beside few large, and how far it holds."""
    lines = []
    if plan.chosen is None:
        nearest = plan.of_each_pair[0]
        lines.append(
            f"No mix of these shapes starts 95 % of the steps within {plan.slo_s:g} s; {nearest.mix} comes nearest "
            f"({nearest.share:.1%}). Allow a longer wait, or take a shape that starts sooner."
        )
    else:
        lines.append(f"Cheapest: {plan.chosen.mix}, {plan.chosen.cost:.3g} an hour.")
    by_slots = sorted(shapes, key=lambda shape: shape.slots)
    if len(by_slots) > 1 and by_slots[0].slots < by_slots[-1].slots:
        lines.append(_many_or_few(plan.alone(by_slots[0]), plan.alone(by_slots[-1]), by_slots[0], by_slots[-1]))
    if plan.checked is not None:
        short = "" if plan.checked.meets else " That is short of 95 %: it is cut fine, add one that always runs."
        lines.append(
            f"On loads that it was not chosen by: {plan.checked.share:.1%} in time, {plan.checked.cost:.3g} an hour."
            + short
        )
    return lines


def _many_or_few(small: Tried | None, large: Tried | None, least: Shape, most: Shape) -> str:
    words = f"Many small ({least.name}) cost {_price(small)}, few large ({most.name}) {_price(large)}."
    if small is not None and large is not None and small.meets and large.meets and min(small.cost, large.cost) > 0:
        dear, cheap = max(small.cost, large.cost), min(small.cost, large.cost)
        cheaper = "the small" if small.cost < large.cost else "the large"
        words += f" Alone, {cheaper} ones are {(dear - cheap) / dear:.0%} cheaper."
    return words


def _price(tried: Tried | None) -> str:
    if tried is None:
        return "an unknown amount"
    return f"{tried.cost:.3g}" if tried.meets else f"{tried.cost:.3g} and miss the objective ({tried.share:.1%})"


def _cells(tried: Tried) -> tuple[str, ...]:
    return (
        str(tried.mix),
        f"{tried.cost:.3g}",
        f"{tried.share:.1%}",
        f"{tried.p95:.1f} s",
        str(tried.most) if tried.mix.elastic is not None else "-",
        str(tried.mix.largest.slots),
    )
