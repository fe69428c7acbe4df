"""A TOML file with the lines of its keys, so that an error in it can say where it stands."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentq.core.errors import InvalidFile

_SYNTAX_ERROR = re.compile(r"(?P<words>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)")
_TABLE = re.compile(r"\s*\[\[?\s*(?P<name>[^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_PART = re.compile(r"\"([^\"]*)\"|'([^']*)'|([^\s.\"']+)")
_KEY = re.compile(r"\s*(?P<name>[A-Za-z0-9_.\"'\- ]+?)\s*=")


@dataclass(frozen=True, slots=True)
class TomlFile:
    """A file that was read: its values, and its text to find lines in."""

    path: Path
    values: dict[str, Any]
    text: str

    def line_of(self, *keys: str) -> int | None:
        """The line, from 1, where the value under these nested keys begins, else its nearest parent.

        None if not even the first key is found.
        """
        lines = _lines(self.text)
        for depth in range(len(keys), 0, -1):
            if keys[:depth] in lines:
                return lines[keys[:depth]]
        return None

    def wrong(self, reason: str, *keys: str) -> InvalidFile:
        """The error that tells this reason at the line of these keys."""
        return InvalidFile(file=str(self.path), line=self.line_of(*keys), reason=reason)


def read_toml(path: Path) -> TomlFile:
    """The file, read; raises InvalidFile with the line where it cannot be."""
    try:
        text = path.read_text(encoding="utf-8")
        return TomlFile(path, tomllib.loads(text), text)
    except tomllib.TOMLDecodeError as error:
        found = _SYNTAX_ERROR.fullmatch(str(error))
        if found is None:
            raise InvalidFile(file=str(path), reason=f"this is not TOML: {error}") from error
        reason = f"this is not TOML: {found['words']} (column {found['column']})"
        raise InvalidFile(file=str(path), line=int(found["line"]), reason=reason) from error
    except UnicodeDecodeError as error:
        raise InvalidFile(file=str(path), reason=f"this is not UTF-8 text: {error}") from error
    except OSError as error:
        reason = f"it cannot be read: {error.strerror or error}"
        raise InvalidFile(file=str(path), reason=reason) from error


def _lines(text: str) -> dict[tuple[str, ...], int]:
    """Where tables and keys stand. A value of several lines that looks like a key may be taken for one."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.match(line):
            table = place = _parts(header["name"])
        elif key := _KEY.match(line):
            place = (*table, *_parts(key["name"]))
        else:
            continue
        for depth in range(1, len(place) + 1):
            found.setdefault(place[:depth], number)
    return found


def _parts(dotted: str) -> tuple[str, ...]:
    # A quoted name may hold dots of its own: [models."gpt-4.1"].
    return tuple(double or single or bare for double, single, bare in _PART.findall(dotted))
