"""Simulated contests as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from agentq.fleet.simulator.contest import Contest, Duel


def contests_table(contests: Sequence[Contest]) -> Table:
    """For each trace the law, the bound, and each rival where it does best for no more than the law's cost."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", show_edge=False)
    table.add_column("trace")
    table.add_column("policy", no_wrap=True)
    table.add_column("cost", justify="right")
    table.add_column("in time", justify="right")
    table.add_column("agentq is ahead by", justify="right")
    for contest in contests:
        law, blind = contest.law, contest.blind
        table.add_row(contest.trace, Text("agentq", style="bold"), f"{law.cost:.2f}", f"{law.share:.1%}", "")
        table.add_row("", "  without expected steps", f"{blind.cost:.2f}", f"{blind.share:.1%}", "")
        table.add_row("", "clairvoyant", f"{contest.bound.cost:.2f}", f"{contest.bound.share:.1%}", "")
        for duel in contest.duels:
            table.add_row("", *_cells(duel))
        table.add_section()
    table.caption = "cost: seconds of workers for each second of work. A rival: tuned, at no more than that cost."
    return table


def _cells(duel: Duel) -> tuple[str | Text, ...]:
    if duel.rival is None:
        return duel.name, "", "", Text("never so cheap", style="dim")
    style = "green" if duel.gain > duel.margin else "red" if duel.gain < -duel.margin else "yellow"
    ahead = Text(f"{duel.gain * 100:+.1f} ± {duel.margin * 100:.1f} points", style=style)
    return duel.name, f"{duel.rival.cost:.2f}", f"{duel.rival.share:.1%}", ahead
