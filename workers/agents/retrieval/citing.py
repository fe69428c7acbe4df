"""A model's answer held to the quotations that it was given.

Owns the rule: a mark [n] stays only if there is a quotation n and the sentence before it shares words with
it. What is removed is said. Knows no model.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from workers.agents.retrieval import words
from workers.agents.retrieval.models import Quotation

_MARKS = re.compile(r"\s*\[(\d+(?:\s*[,;\u2013-]\s*\d+)*)\]")
_NUMBER = re.compile(r"\d+")
_BREAK = re.compile(r"(?<=[.!?])\s+|\n+")
_SHARED = 2
"""Terms that a sentence and the quotation it cites must share; one is enough where either is short."""


class Checked(NamedTuple):
    """An answer whose every citation holds."""

    answer: str
    cited: list[int]
    """Numbers of the quotations that it cites, in order of first mention."""
    notes: list[str]
    """What was removed, and why; empty when nothing was."""


def check_citations(answer: str, quotations: Sequence[Quotation]) -> Checked:
    """The answer without the citations that do not hold. Never raises, whatever a model wrote."""
    bags = [set(words.terms(f"{quotation.heading} {quotation.text}")) for quotation in quotations]
    cited: dict[int, None] = {}
    unknown: dict[str, None] = {}
    unsupported: dict[str, None] = {}

    def hold(match: re.Match[str]) -> str:
        said = set(words.terms(_sentence_before(answer, match.start())))
        kept: list[str] = []
        for written in _numbers(match[1]):
            number = int(written)
            if not 1 <= number <= len(bags):
                unknown.setdefault(written)
            elif len(said & bags[number - 1]) < min(_SHARED, len(said) or 1, len(bags[number - 1]) or 1):
                unsupported.setdefault(written)
            else:
                cited.setdefault(number)
                kept.append(f"[{number}]")
        return f" {''.join(kept)}" if kept else ""

    held = _MARKS.sub(hold, answer).strip()
    notes: list[str] = []
    if unknown:
        notes.append(f"Removed from the answer: citations of quotations that do not exist ({_listed(unknown)}).")
    if unsupported:
        notes.append(
            "Removed from the answer: citations whose quotation does not speak of what the sentence says"
            f" ({_listed(unsupported)})."
        )
    return Checked(held, list(cited), notes)


def _numbers(inside: str) -> list[str]:
    found: list[str] = []
    for piece in re.split(r"[,;]", inside):
        ends = _NUMBER.findall(piece)
        if len(ends) == 2 and 0 < int(ends[1]) - int(ends[0]) < 20:
            found.extend(str(number) for number in range(int(ends[0]), int(ends[1]) + 1))
        else:
            found.extend(ends)
    return [number[:9] for number in found]


def _sentence_before(answer: str, at: int) -> str:
    before = _MARKS.sub("", answer[:at]).rstrip()
    starts = [match.end() for match in _BREAK.finditer(before) if match.end() < len(before)]
    sentence = before[starts[-1] :] if starts else before
    if len(words.terms(sentence)) or not starts:
        return sentence
    return before[starts[-2] if len(starts) > 1 else 0 :]


def _listed(numbers: dict[str, None]) -> str:
    return ", ".join(f"[{number}]" for number in numbers)
