"""Words and their stems.

Owns what counts as a word, which words say nothing, and which forms of a word are one term. Knows no
documents.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

WORD = re.compile(r"[^\W_]+")
"""A word: letters and digits of any script. Hyphens and apostrophes part words, on both sides of a
comparison."""

_COMMON = """
a about above across after again against all almost along already also although always am among an and
another any anybody anyone anything are aren around as at away back be because been before behind being
below between both but by came can cannot come comes could couldn d did didn do does doesn doing don done
down during each either else enough etc even ever every everybody everyone everything far few for from
further furthermore get gets getting give given gives go goes going gone got had hadn has hasn have haven
having he hence her here hers herself him himself his how however i if in indeed instead into is isn it its
itself just least less let like ll many may maybe me might mine more moreover most much must mustn my myself
near neither never nevertheless no nobody none nor not nothing now of off often on once one only onto or
other others otherwise ought our ours ourselves out over own per perhaps quite rather re really s said same
say says see seem seems seen shall shan she should shouldn since so some somebody someone something
sometimes somewhat soon still such t tell than that the their theirs them themselves then there therefore
these they thing things this those though through thus till to together too toward towards under unless
until up upon us use used uses using ve very via want wants was wasn way we well went were weren what
whatever when whenever where whereas wherever whether which while who whoever whole whom whose why will with
within without won would wouldn yes yet you your yours yourself yourselves
"""
STOP_WORDS = frozenset(_COMMON.split())
"""English words that carry no subject. Small and general on purpose: a rare word's weight does the rest."""

_IRREGULAR = {
    "began": "begin", "begun": "begin", "bought": "buy", "broke": "break", "broken": "break",
    "brought": "bring", "built": "build", "caught": "catch", "children": "child", "chose": "choose",
    "chosen": "choose", "data": "datum", "died": "die", "dying": "die", "drawn": "draw", "drew": "draw",
    "fallen": "fall", "fell": "fall", "fed": "feed", "felt": "feel", "found": "find", "fought": "fight", "grew": "grow",
    "grown": "grow", "held": "hold", "indices": "index", "kept": "keep", "knew": "know", "known": "know",
    "laid": "lay", "led": "lead", "left": "leave", "lost": "lose", "made": "make", "men": "man",
    "met": "meet", "paid": "pay", "ran": "run", "resumption": "resume", "sent": "send", "sold": "sell",
    "spent": "spend", "spoke": "speak", "spoken": "speak", "stood": "stand", "storage": "store",
    "taken": "take", "taught": "teach", "thought": "think", "threw": "throw", "thrown": "throw",
    "told": "tell", "took": "take", "understood": "understand", "vertices": "vertex", "women": "woman",
    "won": "win", "wrote": "write", "written": "write",
}  # fmt: skip

_INFLECTIONS = (
    ("ying", "y"), ("ings", ""), ("ing", ""), ("ied", "y"), ("ies", "y"), ("sses", "ss"), ("ches", "ch"),
    ("shes", "sh"), ("xes", "x"), ("ed", ""), ("es", "e"), ("s", ""),
)  # fmt: skip
_DERIVATIONS = (
    ("fulness", ""), ("ousness", ""), ("iveness", "iv"), ("ization", "iz"), ("isation", "iz"),
    ("ational", ""), ("ability", "able"), ("ibility", "ible"), ("ation", ""), ("ement", ""), ("ment", ""),
    ("ness", ""), ("ence", ""), ("ency", ""), ("ent", ""), ("ance", ""), ("ant", ""), ("able", ""),
    ("ible", ""), ("ically", "ic"), ("ally", "al"), ("ably", "able"), ("ator", ""), ("ery", "er"), ("ure", ""),
    ("ion", ""), ("ous", ""), ("or", ""), ("ly", ""),
)  # fmt: skip
"""Endings, tried in this order, one of the first table and up to two of the second, and what takes their
place. After Porter (1980) and Harman's S-stemmer (1991), cut down: the aim is that the forms of one word
meet, not that the stem be a word. https://tartarus.org/martin/PorterStemmer/def.txt"""

_MIN_INFLECTED = 3
_MIN_DERIVED = 4


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """The term of a lower-case word: `resuming`, `resumed` and `resumable` give one term."""
    word = _IRREGULAR.get(word, word)
    if len(word) <= _MIN_INFLECTED or not word.isascii():
        return word
    word = _strip(word, _INFLECTIONS, _MIN_INFLECTED)
    word = _IRREGULAR.get(word, word)
    word = _undouble(word)
    for _ in range(2):  # reliability, reliable, reli
        word = _strip(word, _DERIVATIONS, _MIN_DERIVED)
    return _trim(word)


def _strip(word: str, endings: tuple[tuple[str, str], ...], least: int) -> str:
    for ending, instead in endings:
        if word.endswith(ending):
            kept = word[: -len(ending)]
            if ending == "s" and kept[-1] in "sui":
                return word
            if len(kept + instead) >= least and any(letter in "aeiouy" for letter in kept):
                return kept + instead
    return word


def _undouble(word: str) -> str:
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] and word[-1] in "bdgmnprt" else word


def _trim(word: str) -> str:
    if len(word) > 3 and word.endswith("e") and not word.endswith("ee"):
        word = word[:-1]
    if len(word) > 5 and word.endswith("at"):  # persist-ate, oper-ate
        word = word[:-2]
    return word[:-1] + "i" if len(word) > 3 and word.endswith("y") else word


def terms(text: str) -> list[str]:
    """The terms of a text, in its order, stop words and single characters left out."""
    return [stem(word) for word in WORD.findall(text.lower()) if len(word) > 1 and word not in STOP_WORDS]


class Asked(NamedTuple):
    """A question taken apart."""

    terms: dict[str, str]
    """Its distinct terms in their order, each with the word that it was first asked by."""
    common: list[str]
    """The words that were passed over: they stand in every text."""


def question_words(question: str) -> Asked:
    """What the question looks for."""
    kept: dict[str, str] = {}
    common: dict[str, None] = {}
    for word in WORD.findall(question.lower()):
        if len(word) > 1 and word not in STOP_WORDS:
            kept.setdefault(stem(word), word)
        else:
            common.setdefault(word)
    return Asked(kept, list(common))


@lru_cache(maxsize=64)
def finder(wanted: tuple[str, ...]) -> re.Pattern[str]:
    """A pattern that finds every lower-case text which may hold one of the terms.

    It may find too much (a term's letters inside another word) and never too little: each term is cut to the
    letters that all of its forms begin with, and the irregular forms are added.
    """
    heads: set[str] = set()
    for term in wanted:
        heads.add(_head(term))
        heads.update(form for form, base in _IRREGULAR.items() if stem(base) == term)
    shortest = [head for head in sorted(heads) if not any(head != other and head.startswith(other) for other in heads)]
    return re.compile("|".join(map(re.escape, shortest)) or r"(?!)")


def _head(term: str) -> str:
    if term.endswith(("abl", "ibl", "iz")):
        return term[:-1]
    return term[:-1] if len(term) > _MIN_INFLECTED and term.endswith("i") else term


def counted(words: Iterable[str]) -> dict[str, int]:
    """How often each occurs, in order of first occurrence (so that equal inputs give equal JSON)."""
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return counts
