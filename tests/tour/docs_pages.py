"""The README and the pages of docs/ as data: their code blocks, links and words in code type.

A fence's first word says what becomes of its block:

- ``python`` that begins with a comment ``# name.py``: a file of the project in which all pages run;
- any other ``python``: run in the order of the page, all of a page in one namespace;
- ``py``: only compiled, since it is a fragment;
- ``console``: each line ``$ command`` is run, and what is below it compared loosely with what the command says;
- anything else is shown and not run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.kit.process import ROOT

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w/]+\.(?:py|toml))\n")
_LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block; ``line`` is that of its first line in the page, from 1."""

    page: str
    line: int
    kind: str
    text: str

    @property
    def file(self) -> str | None:
        """The file of the project that the block is; None for one that is run or shown."""
        found = _FILE.match(self.text) if self.kind in ("python", "toml") else None
        return None if found is None else found[1]


@dataclass(frozen=True)
class Page:
    """One page; ``name`` is its path in the repository."""

    name: str
    text: str

    @property
    def blocks(self) -> list[Block]:
        """The fenced blocks, in order."""
        return [
            Block(self.name, self.text.count("\n", 0, found.start(2)) + 1, found[1], found[2])
            for found in _FENCE.finditer(self.text)
        ]

    @property
    def prose(self) -> str:
        """The page without its fenced blocks."""
        return _FENCE.sub("", self.text)

    @property
    def links(self) -> list[str]:
        """The targets of the page's links."""
        return _LINK.findall(self.prose)

    @property
    def spans(self) -> list[str]:
        """What stands in code type in the prose."""
        return _SPAN.findall(self.prose)

    @property
    def anchors(self) -> set[str]:
        """The names by which the page's headings are linked to, as GitHub makes them."""
        headings = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(self.prose))
        return {heading.strip().replace(" ", "-") for heading in headings}


def _read() -> Iterator[Page]:
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        if path.name != "protocol.md":
            yield Page(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))


PAGES = list(_read())
"""The README first. The protocol's tables are kept true by the tests of the store."""
