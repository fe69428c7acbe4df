"""Both rounds' work on one part: find the passages that match, and say how well.

BM25F (Robertson, Zaragoza, Taylor 2004; https://doi.org/10.1145/1031171.1031181) over three fields of a
sentence: its own words, those of its neighbours in the paragraph, and the headings (with the file's name)
above it. The frequencies come back normalised, so that the manager can weigh them by statistics of the whole
collection, which no part knows.
"""

import heapq
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from workers.agents.retrieval import passages, words
from workers.agents.retrieval.models import Candidate, Found, Hint, Part, Query, Slice, Survey, Unread
from workers.agents.retrieval.reading import Text, Unreadable, read_slice

K1 = 1.2
"""Saturation of a term's frequency, the usual value."""
B = 0.6
"""How much a sentence's length counts; less than the usual 0.75, since sentences differ less than
documents."""
AVERAGE_TERMS = 12.0
"""Terms in a sentence of English prose, stop words left out."""
OWN, NEIGHBOUR, HEADING = 1.0, 0.3, 0.35
"""Weights of the three fields."""
COVERAGE = 0.75
"""Share of a score that hangs on how much of the question is met."""
_PASSAGE_CHARS = 130
"""A sentence's usual length: how many passages stand in text that holds no asked word is estimated by it."""
_HINT_TERMS = 30


Kept = TypeVar("Kept")


class Match(NamedTuple):
    """A sentence that holds at least one of the wanted terms."""

    sentence: passages.Sentence
    terms: list[str]
    frequencies: dict[str, float]
    heading: str


class Tally:
    """What a part's text adds up to while it is read."""

    def __init__(self) -> None:
        self.passages = 0
        self.frequency: Counter[str] = Counter()


def matches(text: str, slice_: Slice, wanted: Sequence[str], tally: Tally) -> Iterator[Match]:
    """The sentences that hold a wanted term, in their order; adds to the tally.

    Paragraphs without any letter sequence of a wanted term are passed over unread, which is most of them.
    """
    lower = _lower(text)
    hits = [hit.start() for hit in words.finder(tuple(wanted)).finditer(lower)]
    tally.passages += max(1, len(text) // _PASSAGE_CHARS) if text else 0
    if not hits:
        return
    known = set(wanted)
    name_terms = words.terms(slice_.file)
    headings: dict[str, Counter[str]] = {}
    at = 0
    for block in passages.blocks(text, slice_.kind):
        at = bisect_left(hits, block.start, at)
        if at == len(hits):
            return
        if hits[at] >= block.end:
            continue
        above = headings.get(block.heading)
        if above is None:
            above = Counter(term for term in {*words.terms(block.heading), *name_terms} if term in known)
            headings[block.heading] = above
        yield from _block_matches(text, block, known, above, tally)


def _block_matches(
    text: str, block: passages.Block, known: set[str], above: Counter[str], tally: Tally
) -> Iterator[Match]:
    found = passages.sentences(text, block)
    all_terms = [words.terms(sentence.text) for sentence in found]
    counts = [Counter(term for term in terms if term in known) for terms in all_terms]
    for index, sentence in enumerate(found):
        own = counts[index]
        if not own:
            continue
        tally.frequency.update(own.keys())
        before = counts[index - 1] if index else Counter()
        after = counts[index + 1] if index + 1 < len(found) else Counter()
        length = 1 - B + B * len(all_terms[index]) / AVERAGE_TERMS
        frequencies = {
            term: round(
                OWN * own[term] / length + NEIGHBOUR * min(1, before[term] + after[term]) + HEADING * above[term],
                4,
            )
            for term in sorted({*own, *before, *after, *above})
        }
        yield Match(sentence, all_terms[index], frequencies, block.heading)


def _lower(text: str) -> str:
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)  # "İ" grows, places must not


def idf(passages_in_all: int, holding: int) -> float:
    """BM25's inverse document frequency, never below 0."""
    return math.log(1 + (passages_in_all - holding + 0.5) / (holding + 0.5))


def score(frequencies: Mapping[str, float], query: Query) -> float:
    """How well a passage answers: BM25F over the terms, times the share of the question that it meets.

    Of an asked term and those related to it the best alone counts, so that a list of synonyms wins nothing.
    """
    total = present = whole = 0.0
    counted: set[str] = set()
    for term, others in query.asked.items():
        concept = (term, *others)
        counted.update(concept)
        total += max(_gain(one, frequencies, query) for one in concept)
        rarity = query.idf.get(term, 1.0)
        whole += rarity
        present += rarity * max(query.weights.get(one, 0.0) * min(1.0, frequencies.get(one, 0.0)) for one in concept)
    total += sum(_gain(term, frequencies, query) for term in query.weights if term not in counted)
    return total * (1 - COVERAGE + COVERAGE * present / whole) if whole else total


def _gain(term: str, frequencies: Mapping[str, float], query: Query) -> float:
    tf = frequencies.get(term, 0.0)
    return query.weights.get(term, 0.0) * query.idf.get(term, 1.0) * tf * (K1 + 1) / (tf + K1) if tf else 0.0


class Best(Generic[Kept]):
    """The `keep` best of what is offered, each text once; of equal ones the first."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._heap: list[tuple[float, int, Kept]] = []
        self._texts: set[str] = set()
        self._order = 0

    def wants(self, value: float) -> bool:
        """Would something of that value be kept?"""
        return len(self._heap) < self._keep or value > self._heap[0][0]

    def offer(self, value: float, text: str, item: Kept) -> None:
        """Keep the item if it is among the best and its text is new."""
        if not self.wants(value) or text in self._texts:
            return
        self._texts.add(text)
        self._order -= 1  # unique, so that the heap never compares two items
        entry = (value, self._order, item)
        if len(self._heap) < self._keep:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heapreplace(self._heap, entry)

    def ranked(self) -> list[Kept]:
        """What was kept, best first."""
        return [item for *_, item in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]


def survey_part(part: Part, query: Query) -> Survey:
    """Round one: counts the asked terms and describes the part's best passages, without their text.

    A file that cannot be read is in `unread`; it never raises for what stands in the folder.
    """
    tally, spoken = Tally(), Counter[str]()
    best = Best[tuple[str, Match]](query.keep)
    unread: list[Unread] = []
    notes: list[str] = []
    for slice_, text in _texts(part, unread, notes):
        some = False
        for match in matches(text.text, slice_, list(query.weights), tally):
            some = True
            value = score(match.frequencies, query)
            if best.wants(value) and (form := passages.worth(match.sentence.text)) > 0:
                best.offer(value * form, match.sentence.text.casefold(), (slice_.file, match))
        if some:
            spoken.update(words.WORD.findall(text.text.lower()))
    found = best.ranked()
    counts = _term_counts(spoken, {term for _, match in found for term in match.terms})
    return Survey(
        words=spoken.total(),
        passages=tally.passages,
        frequency=dict(sorted(tally.frequency.items())),
        hints=[_hint(file, match, counts) for file, match in found],
        forms=_forms(match for _, match in found),
        unread=unread,
        notes=notes,
    )


def _hint(file: str, match: Match, counts: Mapping[str, int]) -> Hint:
    kept = list(dict.fromkeys(match.terms))[:_HINT_TERMS]
    return Hint(
        file=file,
        frequencies=match.frequencies,
        terms={term: counts.get(term, 1) for term in kept},
        worth=passages.worth(match.sentence.text),
    )


def _forms(found: Iterable[Match]) -> dict[str, str]:
    forms: dict[str, str] = {}
    for match in found:
        for word in words.WORD.findall(match.sentence.text.lower()):
            if (term := words.stem(word)) != word and term in match.terms:
                forms.setdefault(term, word)
    return forms


def _term_counts(spoken: Mapping[str, int], wanted: set[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for word, number in spoken.items():
        if (term := words.stem(word)) in wanted:
            counts[term] = counts.get(term, 0) + number
    return counts


def search_part(part: Part, query: Query) -> Found:
    """Round two: the part's best passages by the refined question, and how many hold each of its terms."""
    tally = Tally()
    best = Best[Candidate](query.keep)
    for slice_, text in _texts(part, [], []):
        for match in matches(text.text, slice_, list(query.weights), tally):
            value = score(match.frequencies, query)
            if value < query.floor or not best.wants(value):
                continue
            form = passages.worth(match.sentence.text)
            if form > 0 and value * form >= query.floor:
                candidate = _candidate(slice_, text, match, form)
                best.offer(value * form, candidate.text.casefold(), candidate)
    return Found(frequency=dict(sorted(tally.frequency.items())), candidates=best.ranked())


def _candidate(slice_: Slice, text: Text, match: Match, worth: float) -> Candidate:
    return Candidate(
        text=match.sentence.text,
        file=slice_.file,
        line=text.line + text.text.count("\n", 0, match.sentence.start),
        page=text.page,
        heading=match.heading,
        frequencies=match.frequencies,
        worth=worth,
    )


def _texts(part: Part, unread: list[Unread], notes: list[str]) -> Iterator[tuple[Slice, Text]]:
    for piece in part.slices:
        try:
            for text in read_slice(part.folder, piece):
                if text.note and text.note not in notes:
                    notes.append(text.note)
                yield piece, text
        except Unreadable as problem:
            unread.append(Unread(file=piece.file, reason=str(problem)))
