"""The join: from the finalists of all parts to a handful of quotations that are good and differ.

Maximal marginal relevance (Carbonell and Goldstein 1998, https://doi.org/10.1145/290941.291025) over the
score and how central a sentence is among the finalists of other files (after LexRank). Knows no files and no
run.
"""

import math
from collections import Counter
from collections.abc import Sequence

from workers.agents.retrieval import words
from workers.agents.retrieval.models import Candidate, Quotation

QUOTATIONS = 6
"""In a report without a model."""
LAMBDA = 0.72
"""Weight of relevance against being unlike what is already chosen."""
CENTRAL = 0.2
"""Weight of centrality within relevance."""
SUPPORT = 0.1
"""Weight of how well the rest of its file answers: a word may mean something else in a file about something else."""
_SUPPORTERS = 5
WEAK = 0.3
"""A candidate below this share of the best score is no quotation, unless there would be fewer than three."""
SAME = 0.8
"""Two sentences more alike than this say the same."""
LEAST = 3

Vector = dict[str, float]


def choose(finalists: Sequence[tuple[float, Candidate]], *, most: int = QUOTATIONS) -> list[tuple[float, Candidate]]:
    """At most `most` candidates with scores relative to the best, best first."""
    if not finalists:
        return []
    vectors = _vectors([candidate for _, candidate in finalists])
    alike = [[_cosine(one, other) for other in vectors] for one in vectors]
    top = max(value for value, _ in finalists)
    central = _centrality(alike, [candidate.file for _, candidate in finalists])
    support = _support(finalists)
    relevance = [
        (1 - CENTRAL - SUPPORT) * value / top + CENTRAL * central[place] + SUPPORT * support[candidate.file]
        for place, (value, candidate) in enumerate(finalists)
    ]
    chosen = _marginal(relevance, alike, [value / top for value, _ in finalists], most)
    ranked = sorted(chosen, key=lambda place: (-relevance[place], place))
    best = relevance[ranked[0]]
    return [(round(relevance[place] / best, 3), finalists[place][1]) for place in ranked]


def _marginal(
    relevance: Sequence[float], alike: Sequence[Sequence[float]], strength: Sequence[float], most: int
) -> list[int]:
    chosen: list[int] = []
    left = list(range(len(relevance)))
    while left and len(chosen) < most:

        def gain(place: int) -> float:
            return LAMBDA * relevance[place] - (1 - LAMBDA) * max((alike[place][other] for other in chosen), default=0)

        best = max(left, key=lambda place: (gain(place), -place))
        left.remove(best)
        if any(alike[best][other] > SAME for other in chosen):
            continue
        if strength[best] < WEAK and len(chosen) >= LEAST:
            continue
        chosen.append(best)
    return chosen


def _vectors(candidates: Sequence[Candidate]) -> list[Vector]:
    bags = [Counter(words.terms(candidate.text)) for candidate in candidates]
    holding = Counter(term for bag in bags for term in bag)
    vectors: list[Vector] = []
    for bag in bags:
        vector = {term: number * math.log(1 + len(bags) / holding[term]) for term, number in bag.items()}
        length = math.sqrt(sum(weight * weight for weight in vector.values())) or 1.0
        vectors.append({term: weight / length for term, weight in vector.items()})
    return vectors


def _cosine(one: Vector, other: Vector) -> float:
    return sum(weight * other.get(term, 0.0) for term, weight in one.items())


def _centrality(alike: Sequence[Sequence[float]], files: Sequence[str]) -> list[float]:
    sums = [
        sum(value for other, value in enumerate(row) if files[other] != files[place] and value > 0.08)
        for place, row in enumerate(alike)
    ]
    most = max(sums, default=0.0) or 1.0
    return [value / most for value in sums]


def _support(finalists: Sequence[tuple[float, Candidate]]) -> dict[str, float]:
    by_file: dict[str, list[float]] = {}
    for value, candidate in finalists:
        by_file.setdefault(candidate.file, []).append(value)
    sums = {file: sum(sorted(values)[-_SUPPORTERS:]) for file, values in by_file.items()}
    most = max(sums.values())
    return {file: value / most for file, value in sums.items()}


def quotation(value: float, candidate: Candidate) -> Quotation:
    """The candidate as the report shows it."""
    return Quotation(
        text=candidate.text,
        file=candidate.file,
        line=candidate.line,
        page=candidate.page,
        score=value,
        heading=candidate.heading,
    )
