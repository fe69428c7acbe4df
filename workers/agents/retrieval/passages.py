"""From text to sentences that may be quoted, each with its place and the headings above it.

Owns what a paragraph, a heading and a sentence are in each kind of text. Every sentence is a stretch of the
source: nothing is taken out of its middle, so that it can be found again. Knows neither files nor scores.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from workers.agents.retrieval.models import Kind
from workers.agents.retrieval.reading import BLOCK_BREAK, HEADING_BREAK

MIN_WORDS = 5
MAX_WORDS = 80
"""Longer sentences (transcripts, tables of figures) are cut into stretches of `CUT_WORDS`."""
CUT_WORDS = 45
MAX_CHARS = 900
"""What has so long words is no prose; also, patterns stay fast on it."""
_MIN_WRITTEN = 0.55
"""A sentence with a smaller share of letters is code, a table or a log line."""

_FENCE = re.compile(r"\s*(```+|~~~+)")
_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*$")
_UNDERLINE = re.compile(r"([=\-~^\"'`+*#:.])\1{2,}\s*$")
_ITEM = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])\s+(?:\[[ xX]\]\s+)?")
_QUOTE = re.compile(r"\s*(?:>\s?)+")
_SKIPPED = re.compile(r"\s*(?:\[[^\]]+\]:\s|<!--|<[/a-zA-Z]|:::|import |export |\.\. |:[\w-]+:(?:\s|$)|\|?[\s:|+=-]+$)")
_DIRECTIVE = re.compile(r"(\s*)\.\. (?:[\w-]+::|\[|_|\|)")
_ADMONITION = re.compile(
    r"\s*\.\. (?:note|warning|tip|important|seealso|hint|caution|danger|versionadded|admonition|topic)"
)
_CELL = re.compile(r"[^|]+")
_TITLE = re.compile(r"^title:\s*(.+)$", re.MULTILINE)
_FRONT_MATTER = 4096

_END = re.compile(r"[.!?…][\"'”\u2019»)\]*_`]*\s+(?=[^a-z\s])|[。\uff01\uff1f]+|\\n|\n(?=\s*\n)")
_ABBREVIATED = re.compile(
    r"(?:^|[\s(\[\"'“])(?:[A-Za-z]|e\.g|i\.e|etc|vs|cf|al|approx|resp|ca|Dr|Mr|Mrs|Ms|Prof|St|Jr|Sr|Inc|Ltd|Co|Corp|Fig|"
    r"Figs|Eq|Sec|Ch|No|Nos|Vol|pp|ed|eds|Jan|Feb|Mar|Apr|Aug|Sept|Sep|Oct|Nov|Dec|U\.S|U\.K|a\.m|p\.m|Ph\.D)\.$"
)
_LINK = re.compile(r"\[([^\]]*)\]\([^)\s]*\)")
_ROLE = re.compile(r":[\w:-]+:`([^`<]*)[^`]*`")
_LETTERS = re.compile(r"[^\W\d_]")
_CODE = re.compile(
    r"[{};=<>\\]{2}|\w\(\w*\)\s*[.:{]|^\s*(?:import|from|def|class|return|raise|print|const|let|var)\b.*[(=:]"
)
_LEANING = re.compile(
    r"(?:[-*+]\s*)?(?:This|That|These|Those|It|They|He|She|Such|However|But|And|So|Then|Thus|Here|Also|Otherwise|Below|"
    r"Instead|See|For (?:example|instance|more))\b"
)
_FINISHED = re.compile(r"[.!?…。\uff01\uff1f][\"'”\u2019»)\]*_`]*$")


class Block(NamedTuple):
    """A paragraph, list item or table cell: a stretch of the text."""

    start: int
    end: int
    heading: str
    """The two nearest headings, outermost first."""


class Sentence(NamedTuple):
    """A stretch of the text that may stand alone."""

    start: int
    end: int
    text: str
    """The stretch with every run of white space as one space."""


def blocks(text: str, kind: Kind) -> Iterator[Block]:
    """The text's blocks in their order. Code, directives, link lists and front matter are left out."""
    return _marked_blocks(text) if kind == "html" else _Lines(text, kind).blocks()


class _Lines:
    """Walks line by line; `open` is the first character of the block being read, or None."""

    def __init__(self, text: str, kind: Kind) -> None:
        self.text = text
        self.kind = kind
        self.headings: list[tuple[int, str]] = []
        self.heading = ""
        self.open: int | None = None
        self.last = 0
        self.lines = 0
        self.fence = ""
        self.literal: int | None = None
        """Indentation that a literal block or a directive is under; it ends at a line indented no more."""
        self.levels: dict[str, int] = {}

    def blocks(self) -> Iterator[Block]:
        at = self._front_matter()
        text, size = self.text, len(self.text)
        while at < size:
            end = text.find("\n", at)
            end = size if end < 0 else end
            if at == end and self.open is None:
                pass  # one empty line after another
            elif self.fence and self.fence not in text[at:end]:
                pass  # code
            elif self.open is not None and text[at].isalpha() and self.kind != "rst":
                self.last, self.lines = end, self.lines + 1  # a paragraph goes on: most lines of most texts
            else:
                yield from self._line(at, end)
            at = end + 1
        yield from self._close()

    def _front_matter(self) -> int:
        if self.kind != "markdown" or not self.text.startswith("---\n"):
            return 0
        end = self.text.find("\n---\n", 3)
        if not 0 < end < _FRONT_MATTER:
            return 0
        if match := _TITLE.search(self.text, 0, end):
            self._set_heading(0, match[1].strip("\"' "))
        return end + 5

    def _line(self, at: int, end: int) -> Iterator[Block]:
        line = self.text[at:end]
        if not line or line.isspace():
            yield from self._close()
            return
        if self.kind != "text" and (self.kind == "markdown" or self.literal is not None) and self._is_code(line):
            yield from self._close()
            return
        first = line[0]
        if self.lines == 1 and first in "=-~^\"'`+*#:." and self.open is not None and self._underlined(line, first):
            return
        if first == "#" and self.kind == "markdown" and (match := _HEADING.match(line)):
            yield from self._close()
            self._set_heading(len(match[1]), match[2])
            return
        yield from self._content(line, at, end)

    def _is_code(self, line: str) -> bool:
        if self.kind == "rst":
            if _indent(line) > (self.literal or 0):
                return True
            self.literal = None
            return False
        if match := _FENCE.match(line):
            mark = match[1][:3]
            if not self.fence:
                self.fence = mark
                return True
            if self.fence == mark:
                self.fence = ""
                return True
        return bool(self.fence) or (self.open is None and line.startswith(("    ", "\t")) and not _ITEM.match(line))

    def _underlined(self, line: str, first: str) -> bool:
        if not _UNDERLINE.match(line) or (self.kind == "markdown" and first not in "=-") or self.open is None:
            return False
        title = self.text[self.open : self.last].strip()
        self.open, self.lines = None, 0
        self._set_heading(self.levels.setdefault(first, len(self.levels) + 1), title)
        return True

    def _content(self, line: str, at: int, end: int) -> Iterator[Block]:
        if self.kind == "rst" and (match := _DIRECTIVE.match(line)):
            yield from self._close()
            self.literal = None if _ADMONITION.match(line) else len(match[1])
            return
        if self.kind != "text" and _SKIPPED.match(line):
            yield from self._close()
            return
        if line.lstrip()[0] == "|" and line.count("|") > 2:
            yield from self._close()
            for cell in _CELL.finditer(line):
                if not cell[0].isspace():
                    yield Block(at + cell.start(), at + cell.end(), self.heading)
            return
        if match := (_QUOTE.match(line) if self.kind == "markdown" else None) or _ITEM.match(line):
            yield from self._close()
            if match.re is _QUOTE and (item := _ITEM.match(line, match.end())):
                match = item
            self._begin(at + match.end(), end)
            if match.re is _QUOTE:  # the mark on the next line would stand in the middle of a quotation
                yield from self._close()
            return
        if self.open is None:
            self._begin(at + len(line) - len(line.lstrip()), end)
        else:
            self.last, self.lines = end, self.lines + 1
        if self.kind == "rst" and line.rstrip().endswith("::"):
            self.literal = _indent(line)

    def _begin(self, at: int, end: int) -> None:
        self.open, self.last, self.lines = at, end, 1

    def _close(self) -> Iterator[Block]:
        if self.open is None:
            return
        block, lines = Block(self.open, self.last, self.heading), self.lines
        self.open, self.lines = None, 0
        if block.start >= block.end:
            return
        if self.kind == "text" and lines == 1 and block.end - block.start < 80:
            line = self.text[block.start : block.end].strip()
            if line[-1:] not in ".!?:,;" and len(line.split()) < 9:
                self._set_heading(1, line)
                return
        yield block

    def _set_heading(self, level: int, title: str) -> None:
        while self.headings and self.headings[-1][0] >= level:
            self.headings.pop()
        self.headings.append((level, title[:80]))
        self.heading = " > ".join(dict.fromkeys(title for _, title in self.headings[-2:]))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _marked_blocks(text: str) -> Iterator[Block]:
    heading, titled, start = "", False, 0
    for match in re.finditer(f"[{BLOCK_BREAK}{HEADING_BREAK}]|$(?![\\s\\S])", text):
        inside = text[start : match.start()]
        if inside and not inside.isspace():
            if titled:
                heading = " ".join(inside.split())[:80]
            else:
                yield Block(start + _indent(inside), match.start(), heading)
        start, titled = match.end(), match[0] == HEADING_BREAK


def sentences(text: str, block: Block) -> list[Sentence]:
    """The block's sentences in their order; the too short are left out, the too long cut."""
    raw = text[block.start : block.end]
    found: list[Sentence] = []
    start = 0
    for match in _END.finditer(raw):
        if match[0][0] == "." and _ABBREVIATED.search(raw, max(0, match.start() - 12), match.start() + 1):
            continue
        _add(found, raw, start, match.start() if match[0] == "\\n" else match.end(), block.start)
        start = match.end()
    _add(found, raw, start, len(raw), block.start)
    return found


def _add(found: list[Sentence], raw: str, start: int, end: int, base: int) -> None:
    stretch = raw[start:end]
    words = stretch.split()
    if len(words) > MAX_WORDS:
        spans = [match.span() for match in re.finditer(r"\S+", stretch)]
        for first in range(0, len(spans), CUT_WORDS):
            last = min(first + CUT_WORDS, len(spans)) - 1
            text = " ".join(words[first : last + 1])
            found.append(Sentence(base + start + spans[first][0], base + start + spans[last][1], text))
    elif len(words) >= MIN_WORDS:
        lead = len(stretch) - len(stretch.lstrip())
        found.append(Sentence(base + start + lead, base + start + len(stretch.rstrip()), " ".join(words)))


def worth(sentence: str) -> float:
    """How well the sentence can stand alone: 1 for a plain statement, 0 for code or a list of links."""
    if len(sentence) > MAX_CHARS:
        return 0.0
    plain, links = _LINK.subn(r"\1", sentence)
    plain = _ROLE.sub(r"\1", plain)
    words = len(plain.split())
    if links * 5 > words or words < MIN_WORDS:
        return 0.0
    if len(_LETTERS.findall(plain)) < _MIN_WRITTEN * len(plain) or _CODE.search(plain):
        return 0.0
    value = 1.0 if 6 * plain.count("`") < 2 * words else 0.6
    if not _FINISHED.search(plain):
        value *= 0.6 if plain.endswith(":") else 0.75
    if plain.rstrip("\"'”\u2019*_ ").endswith("?"):
        value *= 0.5
    if _LEANING.match(plain):
        value *= 0.85
    if words < 8:
        value *= 0.85
    return value
