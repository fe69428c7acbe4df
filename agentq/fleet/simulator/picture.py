"""Contests as a picture: for each trace what each policy pays, and what share of the steps it begins in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from math import log
from typing import Final

from agentq.fleet.simulator.contest import Contest, Point

WIDTH: Final = 300
HEIGHT: Final = 190
GAP: Final = 56
COLUMNS: Final = 3
COLOURS: Final = {
    "agentq": "#2563eb",
    "fixed": "#9aa5b1",
    "celery": "#16a34a",
    "hpa cpu": "#d9a441",
    "keda depth": "#a855f7",
    "sqs backlog": "#ef4444",
    "knative": "#0e9f8e",
}


def picture(contests: Sequence[Contest]) -> str:
    """The text of an SVG file, one panel for each trace.

    To the right is dearer (logarithmic), up is more steps in time; a rival is a line of its best points.
    """
    rows = (len(contests) + COLUMNS - 1) // COLUMNS
    width, height = COLUMNS * (WIDTH + GAP) + 20, 60 + rows * (HEIGHT + GAP)
    panels = "\n".join(
        _panel(contest, 50 + at % COLUMNS * (WIDTH + GAP), 60 + at // COLUMNS * (HEIGHT + GAP))
        for at, contest in enumerate(contests)
    )
    legend = "".join(
        f'<rect x="{50 + at * 105}" y="14" width="10" height="10" fill="{colour}"/>'
        f'<text x="{64 + at * 105}" y="23">{escape(name)}</text>'
        for at, (name, colour) in enumerate(COLOURS.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="#1f2933">\n'
        f"<title>Share of the steps that begin in time, over what the workers cost</title>\n"
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n{legend}\n'
        f'<text x="{50 + 7 * 105}" y="23">┆ clairvoyant</text>\n{panels}\n</svg>\n'
    )


def _panel(contest: Contest, left: float, top: float) -> str:
    costs = [point.cost for front in contest.fronts.values() for point in front]
    costs += [contest.law.cost, contest.bound.cost]
    # What costs many times as much as the law would press all the rest against the wall.
    most = min(max(costs), contest.law.cost * 4)
    least = min(costs)

    def x(cost: float) -> float:
        return left + WIDTH * log(cost / least) / log(most / least) if most > least else left

    def y(share: float) -> float:
        return top + HEIGHT * (1 - share)

    lines = [
        f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#cbd2d9"/>',
        f'<text x="{left}" y="{top - 8}" font-weight="600">{escape(contest.trace)}</text>',
        f'<line x1="{x(contest.bound.cost):.1f}" x2="{x(contest.bound.cost):.1f}" y1="{top}" y2="{top + HEIGHT}" '
        f'stroke="#1f2933" stroke-dasharray="2 3"/>',
    ]
    for share in (0.25, 0.5, 0.75, 1.0):
        lines.append(f'<text x="{left - 6}" y="{y(share) + 4:.1f}" text-anchor="end" fill="#7b8794">{share:.0%}</text>')
    for cost in (least, most):
        lines.append(
            f'<text x="{x(cost):.1f}" y="{top + HEIGHT + 14}" text-anchor="middle" fill="#7b8794">{cost:.2g}</text>'
        )
    for name, front in contest.fronts.items():
        shown = [point for point in front if point.cost <= most]
        lines.append(_line(shown, COLOURS.get(name, "#6b7280"), x, y))
    law = contest.law
    lines.append(f'<circle cx="{x(law.cost):.1f}" cy="{y(law.share):.1f}" r="5" fill="{COLOURS["agentq"]}"/>')
    return "\n".join(lines)


def _line(points: Sequence[Point], colour: str, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    places = " ".join(f"{x(point.cost):.1f},{y(point.share):.1f}" for point in points)
    dots = "".join(
        f'<circle cx="{x(point.cost):.1f}" cy="{y(point.share):.1f}" r="1.8" fill="{colour}"/>' for point in points
    )
    return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.2"/>{dots}'
