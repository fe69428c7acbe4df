"""Durations, ages, ids and foreign text as words for a terminal."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import TextIO

from rich.console import Console
from rich.text import Text

SHORT_ID_LENGTH = 8

STATUS_STYLE = {
    "queued": "dim",
    "held": "cyan",
    "running": "cyan",
    "parked": "magenta",
    "delayed": "yellow",
    "stopped": "bold red",
    "unschedulable": "yellow",
    "condemned": "bold red",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "yellow",
}

_CONTROL = {code: None for code in [*range(0x20), *range(0x7F, 0xA0)] if chr(code) not in "\n\t"}


def open_console(stream: TextIO | None = None) -> Console:
    """A console on the stream, stdout when `None`, which keeps to NO_COLOR and to what the stream shows."""
    stream = sys.stdout if stream is None else stream
    console = Console(file=stream, highlight=False, soft_wrap=False)
    if not console.is_terminal and console.width == 80:
        # Nobody's window: 80 is rich's guess, and a table cut to it loses ids that a script may want.
        console.width = 140
    return console


def plain(text: object) -> str:
    """The text without control characters: a document's escape sequences must not steer the terminal."""
    return str(text).translate(_CONTROL)


def one_line(text: object) -> str:
    """The text on one line, with runs of white space as one blank."""
    return " ".join(plain(text).split())


def duration(span: timedelta | float | None) -> str:
    """A span as `12 ms`, `3.4 s`, `2 min 05 s`, `3 h 07 min` or `2 d 4 h`; `-` when unknown."""
    if span is None:
        return "-"
    seconds = max(0.0, span.total_seconds() if isinstance(span, timedelta) else float(span))
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def counted(number: int, word: str) -> str:
    """The number with its word: `1 step`, `2 steps`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def ago(moment: datetime | None, now: datetime) -> str:
    """How long before `now` the moment was, in one unit; `-` when unknown."""
    if moment is None:
        return "-"
    seconds = max(0.0, (now - moment).total_seconds())
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def short_id(identity: str) -> str:
    """The first characters of an id, which commands accept in its place while they are unique."""
    return identity[:SHORT_ID_LENGTH]


def short_name(name: str) -> str:
    """A step's name without its module."""
    return one_line(name).rpartition(".")[2]


def status_text(status: str) -> Text:
    """The status in its colour."""
    return Text(status, style=STATUS_STYLE.get(status, ""))


def is_utf8(console: Console) -> bool:
    """Whether block characters can be shown."""
    return console.encoding.lower().replace("-", "") in ("utf8", "utf16", "utf32")
