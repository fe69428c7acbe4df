"""Is a quotation true to its source?

The rule: the quotation's text, and the file from the quotation's line on, are both read with every run of
white space as one space; the text must occur there verbatim and begin on that very line. In HTML the tags and
comments are taken out first and character references are resolved; in a PDF the lines are those of the page's
extracted text.
"""

from itertools import islice
from pathlib import Path
from typing import TextIO

from workers.agents.retrieval.listing import KINDS
from workers.agents.retrieval.models import Quotation, Report, Slice
from workers.agents.retrieval.reading import (
    BLOCK_BREAK,
    HEADING_BREAK,
    Unreadable,
    file_encoding,
    html_text,
    read_slice,
)

_MOST_LINES = 400
_PIECE = 1024 * 1024
"""A line longer than this is read piece by piece, each with the `_TAIL` of the one before."""
_TAIL = 4096
_BREAKS = str.maketrans({BLOCK_BREAK: " ", HEADING_BREAK: " "})


def verify(report: Report, folder: str) -> list[str]:
    """What is untrue, one line for each quotation that does not stand at its place; empty when all do."""
    return [
        f"[{number}] {quotation.file}:{quotation.line}: {reason}"
        for number, quotation in enumerate(report.quotations, 1)
        if (reason := check_quotation(quotation, folder)) is not None
    ]


def check_quotation(quotation: Quotation, folder: str) -> str | None:
    """None when the quotation stands at its place, else why not. Holds some hundred lines of the file."""
    wanted = squeeze(quotation.text)
    if not wanted:
        return "the quotation is empty"
    root = Path(folder).expanduser().resolve()
    path = (root / quotation.file).resolve()
    if not path.is_relative_to(root):
        return "the file lies outside the folder"
    kind = KINDS.get(path.suffix.lower(), "text")
    try:
        if kind == "pdf":
            return _check_page(quotation, folder, wanted)
        with path.open(encoding=file_encoding(path), errors="replace", newline=None) as file:
            return _check_lines(file, quotation.line, wanted, html=kind == "html")
    except (OSError, Unreadable) as problem:
        return f"the file cannot be read: {problem}"


def squeeze(text: str) -> str:
    """The text with every run of white space as one space, none at its ends."""
    return " ".join(text.split())


def _check_page(quotation: Quotation, folder: str, wanted: str) -> str | None:
    page = (quotation.page or 1) - 1
    for text in read_slice(folder, Slice(file=quotation.file, kind="pdf", start=page, end=page + 1)):
        return _check_window(text.text.split("\n")[quotation.line - 1 :], wanted)
    return "the document has no such page"


def _check_lines(file: TextIO, line: int, wanted: str, *, html: bool) -> str | None:
    number, held = 1, ""
    while piece := file.readline(_PIECE):
        finished = piece.endswith("\n")
        if number == line:
            first = held + piece.removeprefix("\ufeff")
            window = [first, *islice(file, _MOST_LINES)] if finished else [first]
            reason = _check_window(_plain("".join(window)) if html else window, wanted)
            if reason is None or finished:
                return reason
            held = first[-(4 * len(wanted) + _TAIL) :]
        number += finished
    return "the text does not stand there" if number == line else "the file has no such line"


def _plain(source: str) -> list[str]:
    return html_text(source).translate(_BREAKS).split("\n")


def _check_window(lines: list[str], wanted: str) -> str | None:
    if not lines:
        return "there is no such line"
    at = squeeze(" ".join(lines)).find(wanted)
    if at < 0:
        return "the text does not stand there"
    return None if at < max(1, len(squeeze(lines[0]))) else "the text begins on a later line"
