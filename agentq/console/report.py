"""A run's result for people: an answer with its quotations, or any other value as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.json import JSON
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from agentq.console.words import one_line, plain
from agentq.core.codec import dumps, to_jsonable

LINES_AT_MOST = 10
"""Of files not read, and of notes: a folder may have thousands."""


def report(result: Any, *, console: Console) -> RenderableType:
    """The result: text as it stands, a value with an `answer` as that and its quotations, else JSON."""
    value = to_jsonable(result)
    if isinstance(value, str):
        return Text(plain(value))
    if isinstance(value, Mapping) and isinstance(value.get("answer"), str):
        return _answered(value, console)
    return JSON(dumps(value))


def _answered(value: Mapping[str, Any], console: Console) -> RenderableType:
    parts: list[RenderableType] = [Text(plain(value["answer"]))]
    rest = dict(value)
    del rest["answer"]
    quotations = rest.get("quotations")
    if _are_quotations(quotations):
        assert isinstance(quotations, list)
        del rest["quotations"]
        if quotations:
            parts += [Text(), Text("Quotations", style="bold"), _quotations_table(quotations, console)]
    unread = rest.pop("unread", None)
    if unread:
        parts += [Text(), _lines("Not read", _unread_words(unread), style="yellow")]
    notes = rest.get("notes")
    if isinstance(notes, list) and notes and all(isinstance(note, str) for note in notes):
        del rest["notes"]
        parts += [Text(), _lines("Notes", [one_line(note) for note in notes], style="dim")]
    facts = [f"{name}: {_fact(field)}" for name, field in rest.items() if _is_told(name, field)]
    if facts:
        parts += [Text(), Text("\n".join(facts), style="dim")]
    return Group(*parts)


def _is_told(name: str, field: Any) -> bool:
    # The question has just been asked by whoever reads this.
    return name != "question" and field not in (None, [], {}, "")


def _fact(field: Any) -> str:
    """A field's value on one line: words where it is simple, JSON where it is not."""
    if isinstance(field, Mapping) and not any(isinstance(item, Mapping | list) for item in field.values()):
        return ", ".join(f"{one_line(name)} {_fact(item)}" for name, item in field.items())
    if isinstance(field, list) and all(isinstance(item, str) for item in field):
        return ", ".join(map(one_line, field))
    return one_line(field if isinstance(field, str) else dumps(field))


def _are_quotations(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, Mapping) and "text" in item for item in value)


def _quotations_table(quotations: Sequence[Mapping[str, Any]], console: Console) -> RenderableType:
    table = Table(box=box.SIMPLE, pad_edge=False, show_header=False, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", style="bold", no_wrap=True)
    scores = any(isinstance(quote.get("score"), int | float) for quote in quotations) and console.width >= 80
    table.add_column(overflow="fold")
    if scores:
        table.add_column(justify="right", style="dim", no_wrap=True)
    for number, quote in enumerate(quotations, 1):
        words = Text(f"“{one_line(quote['text'])}”")
        words.append("\n" + _place(quote), style="cyan")
        score = quote.get("score")
        cells: list[RenderableType] = [str(number), words]
        if scores:
            cells.append(f"{score:.2f}" if isinstance(score, int | float) else "")
        table.add_row(*cells)
    return Padding(table, (0, 0, 0, 1))


def _place(quote: Mapping[str, Any]) -> str:
    place = one_line(quote.get("file", ""))
    return f"{place}:{quote['line']}" if quote.get("line") is not None else place


def _unread_words(unread: Any) -> list[str]:
    if isinstance(unread, Mapping):
        return [f"{one_line(name)}: {one_line(reason)}" for name, reason in unread.items()]
    return [
        ": ".join(one_line(item[name]) for name in ("file", "path", "reason") if item.get(name))
        if isinstance(item, Mapping)
        else one_line(item)
        for item in unread
    ]


def _lines(title: str, words: Sequence[str], *, style: str) -> Text:
    """The title with the words below it, line by line, as many as a screen has room for."""
    lines = Text(title, style="bold")
    for line in words[:LINES_AT_MOST]:
        lines.append(f"\n  {line}", style=style)
    if len(words) > LINES_AT_MOST:
        lines.append(f"\n  and {len(words) - LINES_AT_MOST} more; --json has them all", style=style)
    return lines
