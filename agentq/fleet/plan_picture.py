"""A plan as a picture: what an hour costs, over how much of it always runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import floor, log10
from typing import Final

from agentq.fleet.planning import Plan, Tried, pair_of

WIDTH: Final = 620
HEIGHT: Final = 320
LEFT: Final = 60
TOP: Final = 30
COLOURS: Final = ("#2563eb", "#d9a441", "#16a34a", "#a855f7", "#ef4444", "#0e9f8e", "#6b7280", "#db2777")
"""One for what comes and goes; those beyond share the last."""

FIXED_COLOUR: Final = "#1f2933"
DASHES: Final = ("", "5 3", "1 3", "8 3 1 3")
"""One for what always runs."""

_TICKS: Final = 5


def picture(plan: Plan) -> str:
    """The text of an SVG file.

    To the right more slots always run, up is dearer. A dot is a mix that was simulated, a full one meets the objective;
    a line joins those of the same two shapes. The chosen mix has a ring.
    """
    most_slots = max([each.mix.fixed_slots for each in plan.tried] + [1])
    # Mixes far above the chosen one would press the others together.
    ceiling = plan.chosen.cost * 3 if plan.chosen is not None else max(each.cost for each in plan.tried) * 1.05
    most_cost = max(min(max(each.cost for each in plan.tried) * 1.05, ceiling), 1e-9)

    def x(slots: float) -> float:
        return LEFT + WIDTH * min(slots / most_slots, 1.0)

    def y(cost: float) -> float:
        return TOP + HEIGHT * (1 - cost / most_cost)

    names = sorted({name for each in plan.tried for name in pair_of(each.mix)} - {""})
    marks = _Marks(names)
    drawn = [*_axes(x, y, most_slots, most_cost)]
    shown = [each for each in plan.tried if each.cost <= most_cost]
    for pair in sorted({pair_of(each.mix) for each in shown}):
        of_pair = sorted((each for each in shown if pair_of(each.mix) == pair), key=lambda each: each.mix.number)
        drawn.append(_line(of_pair, marks.colour(pair[1]), marks.dash(pair[0]), x, y))
    drawn += [_dot(each, marks, x, y) for each in shown]
    if plan.chosen is not None:
        at = plan.chosen
        drawn.append(
            f'<circle cx="{x(at.mix.fixed_slots):.1f}" cy="{y(at.cost):.1f}" r="8" fill="none" stroke="#ef4444" '
            f'stroke-width="2"/>'
        )
    legend = _legend(marks, names)
    height = TOP + HEIGHT + 70 + 16 * len(legend)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 60} {height}" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="#1f2933">\n'
        f"<title>What an hour costs, over the slots that always run</title>\n"
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n' + "\n".join([*drawn, *legend]) + "\n</svg>\n"
    )


class _Marks:
    """Which colour and which dashes tell which shape."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)

    def colour(self, elastic: str) -> str:
        return COLOURS[min(self._names.index(elastic), len(COLOURS) - 1)] if elastic else FIXED_COLOUR

    def dash(self, base: str) -> str:
        return DASHES[self._names.index(base) % len(DASHES)] if base else ""


def _axes(x: Callable[[float], float], y: Callable[[float], float], slots: int, cost: float) -> list[str]:
    lines = [f'<rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#cbd2d9"/>']
    lines += [
        f'<text x="{x(at):.1f}" y="{TOP + HEIGHT + 14}" text-anchor="middle" fill="#7b8794">{at:g}</text>'
        for at in _ticks(slots)
    ]
    lines += [
        f'<text x="{LEFT - 6}" y="{y(price) + 4:.1f}" text-anchor="end" fill="#7b8794">{price:g}</text>'
        for price in _ticks(cost)
    ]
    lines.append(
        f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 30}" text-anchor="middle">slots that always run</text>'
    )
    lines.append(f'<text x="{LEFT}" y="{TOP - 10}">cost of an hour</text>')
    return lines


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 up to the most, about five."""
    scale = 10 ** floor(log10(most / _TICKS))
    step = next(scale * times for times in (1, 2, 5, 10) if scale * times >= most / _TICKS)
    return [round(step * at, 12) for at in range(floor(most / step + 1e-9) + 1)]


def _line(
    tried: Sequence[Tried], colour: str, dash: str, x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    places = " ".join(f"{x(each.mix.fixed_slots):.1f},{y(each.cost):.1f}" for each in tried)
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1" opacity="0.6"{dashes}/>'


def _dot(tried: Tried, marks: _Marks, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    colour = marks.colour(pair_of(tried.mix)[1])
    fill = colour if tried.meets else "#ffffff"
    return (
        f'<circle cx="{x(tried.mix.fixed_slots):.1f}" cy="{y(tried.cost):.1f}" r="3.5" fill="{fill}" '
        f'stroke="{colour}"><title>{escape(str(tried.mix))}: {tried.cost:.3g} an hour, {tried.share:.1%} in time'
        f"</title></circle>"
    )


def _legend(marks: _Marks, names: Sequence[str]) -> list[str]:
    top = TOP + HEIGHT + 52
    lines = []
    for row, name in enumerate(names):
        at = top + 16 * row
        dash = f' stroke-dasharray="{marks.dash(name)}"' if marks.dash(name) else ""
        lines.append(
            f'<rect x="{LEFT}" y="{at - 9}" width="10" height="10" fill="{marks.colour(name)}"/>'
            f'<text x="{LEFT + 16}" y="{at}">{escape(name)} comes and goes</text>'
            f'<line x1="{LEFT + 200}" x2="{LEFT + 230}" y1="{at - 4}" y2="{at - 4}" stroke="#1f2933"{dash}/>'
            f'<text x="{LEFT + 238}" y="{at}">{escape(name)} always runs</text>'
        )
    lines.append(
        f'<circle cx="{LEFT + 5}" cy="{top + 16 * len(names) - 4}" r="3.5" fill="{FIXED_COLOUR}"/>'
        f'<text x="{LEFT + 16}" y="{top + 16 * len(names)}">nothing comes and goes; a full dot meets the objective, '
        f"an empty one does not; the ring is the cheapest that does</text>"
    )
    return lines
