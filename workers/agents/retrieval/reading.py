"""From bytes to text whose lines keep their numbers.

Owns encodings, the cutting of large files, and what HTML and PDF look like as text. Knows no words.
"""

import codecs
import logging
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

from workers.agents.retrieval.models import Slice

BLOCK_BREAK = "\x1e"
"""Stands in text made from HTML where a block begins or ends (an ASCII record separator: no text holds
one)."""
HEADING_BREAK = "\x1d"
"""Opens a heading in text made from HTML; the next break closes it."""

_BLOCK = 1024 * 1024
_SAMPLE = 16 * 1024
_FEW = 0.02
"""Text with a smaller share of bytes above 127 is taken as windows-1252: a detector has too little to go
by."""
_PAGES = 20
_PAGE_CHARS = 200_000
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


class Unreadable(Exception):
    """This file cannot be read; its text says why, and begins like a sentence about the file: "it …"."""


class Text(NamedTuple):
    """A piece of text as a step searches it."""

    text: str
    line: int
    """1-based line of the source on which it begins."""
    page: int | None
    note: str | None
    """What a reader should know of how it was read."""


def read_slice(folder: str, piece: Slice) -> Iterator[Text]:
    """The slice's text, one item a page for a PDF. Raises Unreadable, also for a path out of the folder."""
    root = Path(folder).expanduser().resolve()
    path = (root / piece.file).resolve()
    if not path.is_relative_to(root):
        raise Unreadable("it lies outside the folder")
    try:
        if piece.kind == "pdf":
            yield from _pdf_pages(path, piece.start, piece.end)
            return
        with path.open("rb") as file:
            file.seek(piece.start)
            raw = file.read(-1 if piece.end is None else piece.end - piece.start)
    except OSError as problem:
        raise Unreadable(f"it cannot be opened: {problem.strerror or problem}") from problem
    encoding = piece.encoding or decide_encoding(raw)
    text = _decode(raw, encoding)
    note = None if encoding.startswith("utf") else f"{piece.file} is not UTF-8: read as {encoding} (a guess)."
    yield Text(html_text(text) if piece.kind == "html" else text, piece.line, None, note)


def decide_encoding(raw: bytes) -> str:
    """The encoding's Python name. Raises Unreadable for what is no text."""
    for mark, name in _BOMS:
        if raw.startswith(mark):
            return name
    zeros = raw.count(0)
    if zeros > len(raw) // 5:
        even = raw[::2].count(0)
        if even > 0.9 * zeros or even < 0.1 * zeros:
            return "utf-16-be" if even > zeros // 2 else "utf-16-le"
    if zeros * 1000 > len(raw):
        raise Unreadable("it holds binary data, not text")
    try:
        raw.decode()
    except UnicodeDecodeError as problem:
        if problem.reason == "unexpected end of data" and len(raw) - problem.start < 4:
            return "utf-8"
        return _guess(raw[max(0, problem.start - _SAMPLE // 4) : problem.start + _SAMPLE])
    return "utf-8"


def _guess(sample: bytes) -> str:
    high = sum(byte > 127 for byte in sample)
    if high > _FEW * len(sample):
        from charset_normalizer import from_bytes  # loads 10 MB of tables: only where they are needed

        best = from_bytes(sample).best()
        if best is not None:
            return best.encoding
    return "cp1252"


def _decode(raw: bytes, encoding: str) -> str:
    text = raw.decode(encoding, "replace").removeprefix("\ufeff")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def cut_text(path: Path, size: int) -> tuple[str, list[tuple[int, int, int]]]:
    """The file's encoding and its cuts (first byte, byte after the last, line) of at most `size` bytes.

    A cut lies at an empty line where there is one in the last quarter, else after a line's end, else between
    words. Holds two blocks of the file at a time. Raises Unreadable.
    """
    try:
        with path.open("rb") as file:
            encoding = _file_encoding(file.read(_BLOCK), file)
            unit = 4 if "32" in encoding else 2 if "16" in encoding else 1
            file.seek(0)
            return encoding, list(_cuts(file, encoding, size - size % 4, unit))
    except OSError as problem:
        raise Unreadable(f"it cannot be read: {problem.strerror or problem}") from problem


def file_encoding(path: Path) -> str:
    """The encoding that the file is read in, as for its slices. Raises Unreadable and OSError."""
    with path.open("rb") as file:
        return _file_encoding(file.read(_BLOCK), file)


def _file_encoding(head: bytes, file: Any) -> str:
    encoding = decide_encoding(head)
    if encoding != "utf-8":
        return _with_order(encoding, head)
    decoder = codecs.getincrementaldecoder("utf-8")()
    block = head
    while block:
        try:
            decoder.decode(block)
        except UnicodeDecodeError as problem:
            return _guess(block[max(0, problem.start - _SAMPLE // 4) : problem.start + _SAMPLE])
        block = file.read(_BLOCK)
    return "utf-8"


def _with_order(encoding: str, head: bytes) -> str:
    """Spells the byte order out: only a file's first slice has the mark that tells it."""
    if encoding == "utf-8-sig":
        return "utf-8"
    if encoding in ("utf-16", "utf-32"):
        return encoding + ("-le" if head[0] == 0xFF else "-be")
    return encoding


def _cuts(file: Any, encoding: str, size: int, unit: int) -> Iterator[tuple[int, int, int]]:
    start, line = 0, 1
    while True:
        file.seek(start)
        raw = file.read(size)
        last = len(raw) < size or not file.read(1)
        length = len(raw) if last else _cut_at(raw, encoding, unit)
        if length:
            yield start, start + length, line
        if last:
            return
        line += _line_ends(raw[:length], encoding, unit)
        start += length


def _cut_at(raw: bytes, encoding: str, unit: int) -> int:
    for mark in ("\n\n", "\r\n\r\n", "\n", " "):
        wanted = mark.encode(encoding)
        at = raw.rfind(wanted, len(raw) * 3 // 4 if mark != "\n" else len(raw) // 2)
        while at > 0 and at % unit:
            at = raw.rfind(wanted, 0, at + len(wanted) - 1)
        if at > 0:
            return at + len(wanted)
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    text = decoder.decode(raw)
    end = len(raw) - len(decoder.getstate()[0])  # what is left is the beginning of a character
    # A cut between "\r" and "\n" would make two line ends of one.
    return end - len("\r".encode(encoding)) if text.endswith("\r") and len(text) > 1 else end


def _line_ends(raw: bytes, encoding: str, unit: int) -> int:
    if unit == 1:
        return raw.count(b"\n") + raw.count(b"\r") - raw.count(b"\r\n")
    return _decode(raw, encoding).count("\n")


_INLINE = """
a abbr b bdi bdo cite code data del dfn em font i ins kbd label mark q s samp small span strong sub sup time
tt u var wbr
"""


class _HtmlText(HTMLParser):
    """Collects the text, each word on the line where it stands in the source."""

    SILENT = frozenset({"script", "style", "template", "svg", "head", "nav", "noscript", "pre"})
    INLINE = frozenset(_INLINE.split())

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)  # a written-out &#10; must not count as a line
        self.pieces: list[str] = []
        self.line = 1
        self.silent: list[str] = []

    def _mark(self, mark: str) -> None:
        line = self.getpos()[0]
        if line > self.line:
            self.pieces.append("\n" * (line - self.line))
            self.line = line
        self.pieces.append(mark)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "body":
            self.silent.clear()  # a head need not be closed
        if self.silent or tag in self.SILENT:
            self.silent += [tag] if tag in self.SILENT else []
        elif tag not in self.INLINE:
            self._mark(HEADING_BREAK if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit() else BLOCK_BREAK)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.silent:
            while self.silent.pop() != tag:
                pass
        elif not self.silent and tag not in self.INLINE:
            self._mark(BLOCK_BREAK)

    def handle_data(self, text: str) -> None:
        if not self.silent:
            self._mark(text)
            self.line += text.count("\n")

    def handle_entityref(self, name: str) -> None:
        self._reference(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self._reference(f"&#{name};")

    def _reference(self, written: str) -> None:
        if not self.silent:
            self._mark(" ".join(unescape(written).split("\n")))


def html_text(source: str) -> str:
    """The text of HTML without its tags, every word still on its line, blocks apart by `BLOCK_BREAK`."""
    for text in (
        source,
        source.replace("<![", "<!-["),
    ):  # the parser gives up at a marked section that it does not know
        parser = _HtmlText()
        try:
            parser.feed(text)
            parser.close()
        except AssertionError:
            continue
        return "".join(parser.pieces)
    return ""


def cut_pages(path: Path) -> list[tuple[int, int]]:
    """Ranges of at most 20 pages. Raises Unreadable."""
    with path.open("rb") as file:
        pages = len(_open_pdf(file).pages)
    return [(start, min(start + _PAGES, pages)) for start in range(0, pages, _PAGES)]


def _open_pdf(file: Any) -> Any:
    from pypdf import PdfReader  # 30 MB of modules: only where there is a PDF

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what matters of its warnings stands in the reason
    try:
        reader = PdfReader(file, strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("it is encrypted and needs a password")
        len(reader.pages)
    except Unreadable:
        raise
    except Exception as problem:  # pypdf raises many kinds for broken files, built-in ones too
        raise Unreadable(f"it is no PDF that can be read: {problem or type(problem).__name__}") from problem
    return reader


def _pdf_pages(path: Path, start: int, end: int | None) -> Iterator[Text]:
    with path.open("rb") as file:
        reader = _open_pdf(file)
        empty = True
        for number in range(start, len(reader.pages) if end is None else min(end, len(reader.pages))):
            try:
                text = reader.pages[number].extract_text()[:_PAGE_CHARS]
            except Exception as problem:  # as above: one broken page is not the end of the document
                yield Text("", 1, number + 1, f"{path.name}, page {number + 1}, cannot be read: {problem}")
                continue
            empty = empty and not text.strip()
            yield Text(text.replace("\r\n", "\n").replace("\r", "\n"), 1, number + 1, None)
        if empty and end is None:
            raise Unreadable("it holds no text (scanned pages?)")
