"""The manager's work between the rounds and after them: pure, small, and the same on every replay.

Owns the collection's statistics, pseudo-relevance feedback and the choice of finalists. Holds no document's
text but the sentences that the parts offered.
"""

import math
from collections.abc import Iterable, Sequence

from workers.agents.retrieval.models import Candidate, Found, Hint, Query, Searched, Survey
from workers.agents.retrieval.related import related
from workers.agents.retrieval.scoring import idf, score

FEEDBACK = 12
"""Best passages of round one that refine the question; RM3's usual 10, and a little for their being
sentences."""
ADDED = 8
"""Terms that they may add."""
ADDED_WEIGHT = 0.3
"""Weight of the best added term; below RM3's usual one half, as related terms are in already.
https://doi.org/10.1145/383952.383972"""
RELATED_WEIGHT = 0.6
"""Weight of a word that means about the same as an asked one."""
EXTRA_WEIGHT = 0.5
"""Weight of a term that only a model's sub-questions hold."""
COMMON = 1 / 250
"""A term that makes up more than this share of the words names nothing."""
SURE = 4
"""A term shared by fewer passages counts for less in proportion."""
SMALL = 2000
"""Words added to a collection's before rates are taken: in a page or two every word looks common."""
FINALISTS = 48
"""Candidates among which the join chooses."""
FLOOR = 0.4
"""Share of the FINALISTS-th score of round one below which round two leaves a passage where it is."""
MOST_ASKED = 40
"""Terms of a question beyond this are left out: a pasted page is no question."""


def first_query(asked: Sequence[str], extra: Iterable[str] = (), *, parts: int = 1) -> Query:
    """Round one's query: the question's terms; lighter, those of like meaning and a model's `extra` ones."""
    own = list(asked)[:MOST_ASKED]
    concepts = {term: [other for other in related(term) if other not in own] for term in own}
    weights = dict.fromkeys(own, 1.0)
    for others in concepts.values():
        for other in others:
            weights.setdefault(other, RELATED_WEIGHT)
    for term in list(extra)[:MOST_ASKED]:
        weights.setdefault(term, EXTRA_WEIGHT)
    return Query(weights=weights, asked=concepts, keep=max(3, min(FEEDBACK, 60 // max(1, parts))))


def total(surveys: Sequence[Survey], *, parts: int, files: int) -> Searched:
    """What was read in all."""
    return Searched(
        files=files,
        parts=parts,
        passages=sum(one.passages for one in surveys),
    )


def refine(query: Query, surveys: Sequence[Survey], *, parts: int) -> Query:
    """Round two's query: exact rarity of the terms so far, and terms that the best passages share."""
    in_all = max(1, sum(one.passages for one in surveys))
    rarity = {term: idf(in_all, sum(one.frequency.get(term, 0) for one in surveys)) for term in query.weights}
    weighed = query.model_copy(update={"idf": rarity})
    ranked = sorted(
        (
            (score(hint.frequencies, weighed) * hint.worth, -part, -place, hint)
            for part, one in enumerate(surveys)
            for place, hint in enumerate(one.hints)
        ),
        key=lambda item: item[:3],
        reverse=True,
    )
    distinct: dict[tuple[str, ...], tuple[float, int, int, Hint]] = {}
    for item in ranked:  # the same sentence in many files (a licence, a footer) is one voice
        distinct.setdefault(tuple(item[3].terms), item)
    ranked = list(distinct.values())
    added = _added([(item[0], item[3]) for item in ranked[:FEEDBACK]], surveys, set(query.weights))
    strongest = max((weight for _, weight, _ in added), default=1.0)
    weights = dict(query.weights)
    for term, weight, term_rarity in added:
        weights[term] = round(ADDED_WEIGHT * weight / strongest, 4)
        rarity[term] = term_rarity
    floor = ranked[FINALISTS - 1][0] * FLOOR if len(ranked) >= FINALISTS else 0.0
    return Query(
        weights=weights,
        asked=query.asked,
        idf={term: round(value, 4) for term, value in rarity.items()},
        keep=max(4, min(FINALISTS, 4 * FINALISTS // max(1, parts))),
        floor=round(floor, 4),
    )


def spoken(terms: Iterable[str], surveys: Sequence[Survey]) -> list[str]:
    """Each term as the first part that knows it writes it."""
    return [next((one.forms[term] for one in surveys if term in one.forms), term) for term in terms]


def _added(
    best: Sequence[tuple[float, Hint]], surveys: Sequence[Survey], known: set[str]
) -> list[tuple[str, float, float]]:
    """(term, weight, rarity) of the terms that at least two of the passages share, strongest first."""
    occurrences, spoken = _rates(surveys)
    mass: dict[str, float] = {}
    holders: dict[str, int] = {}
    files: dict[str, set[str]] = {}
    for value, hint in best:
        for term in hint.terms:
            mass[term] = mass.get(term, 0.0) + value / math.sqrt(len(hint.terms))
            holders[term] = holders.get(term, 0) + 1
            files.setdefault(term, set()).add(hint.file)
    spread = 2 if len({hint.file for _, hint in best}) > 3 else 1
    kept: list[tuple[str, float, float]] = []
    for term, weight in mass.items():
        rate = occurrences[term] / (spoken[term] + SMALL)
        if term in known or holders[term] < 2 or len(files[term]) < spread or rate > COMMON or len(term) < 3:
            continue
        if not any(letter.isalpha() for letter in term):
            continue
        rarity = math.log(1 + 1 / (12 * rate))
        kept.append((term, weight * rarity * min(1.0, holders[term] / SURE), round(rarity, 4)))
    return sorted(kept, key=lambda item: (-item[1], item[0]))[:ADDED]


def _rates(surveys: Sequence[Survey]) -> tuple[dict[str, int], dict[str, int]]:
    """How often each hinted term occurs, and among how many words, over the parts that spoke of it."""
    occurrences: dict[str, int] = {}
    spoken: dict[str, int] = {}
    for one in surveys:
        mentioned: dict[str, int] = {}
        for hint in one.hints:
            mentioned.update(hint.terms)
        for term, number in mentioned.items():
            occurrences[term] = occurrences.get(term, 0) + number
            spoken[term] = spoken.get(term, 0) + one.words
    return occurrences, spoken


def finalists(query: Query, found: Sequence[Found], in_all: int) -> list[tuple[float, Candidate]]:
    """The best candidates of all parts by the whole collection's statistics, best first, each text once."""
    rarity = {term: idf(max(1, in_all), sum(one.frequency.get(term, 0) for one in found)) for term in query.weights}
    weighed = query.model_copy(update={"idf": rarity})
    ranked = sorted(
        (
            (score(one.frequencies, weighed) * one.worth, -part, -place, one)
            for part, result in enumerate(found)
            for place, one in enumerate(result.candidates)
        ),
        key=lambda item: item[:3],
        reverse=True,
    )
    kept: dict[str, tuple[float, Candidate]] = {}
    for value, _, _, candidate in ranked:
        if value > 0 and len(kept) < FINALISTS:
            kept.setdefault(candidate.text.casefold(), (value, candidate))
    return list(kept.values())
