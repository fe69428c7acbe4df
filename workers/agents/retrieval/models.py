"""What travels between the steps of `research`, and the report that it ends with.

Every value is small: a document's text never leaves the step that read it, save for the sentences that it
offers.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Kind = Literal["text", "markdown", "rst", "html", "pdf"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Slice(_Value):
    """A range of one file that a step reads at once."""

    file: str
    """Path relative to the folder, with forward slashes."""
    kind: Kind
    start: int = 0
    """First byte; for a PDF the first page, counted from 0."""
    end: int | None = None
    """The byte (or page) after the last; None: to the end of the file."""
    line: int = 1
    """1-based line on which the first byte stands."""
    encoding: str | None = None
    """Set where a file is cut, so that its slices are decoded alike; None: decided from the slice."""
    weight: int = 0
    """Bytes, or what a range of PDF pages costs in terms of bytes of text."""


class Part(_Value):
    """What one search step reads, one slice after the other."""

    folder: str
    slices: list[Slice]


class Unread(_Value):
    """A file (or folder) that could not be read, and why."""

    file: str
    reason: str


class Listing(_Value):
    """One chunk of a folder's files, in the order of their paths."""

    problem: Literal["missing", "not_a_folder", "unreadable"] | None = None
    place: str = ""
    """Where the worker looked, absolute."""
    slices: list[Slice] = []
    unread: list[Unread] = []
    other: dict[str, int] = {}
    """Files of kinds that are not read, counted by suffix."""
    after: str | None = None
    """Ask for the next chunk with this; None: this was the last."""


class Query(_Value):
    """What a step looks for."""

    weights: dict[str, float]
    """Term to weight; the question's own terms have 1."""
    asked: dict[str, list[str]]
    """The question's own terms, each with those of about the same meaning."""
    idf: dict[str, float] = {}
    """Inverse document frequency by term, from round one; empty in round one."""
    keep: int = 4
    """At most this many passages come back from a part."""
    floor: float = 0.0
    """Passages that score less are left where they are."""


class Hint(_Value):
    """A passage of round one without its text: enough to refine the question."""

    file: str
    frequencies: dict[str, float]
    """Field-weighted, length-normalised frequency of each asked term (BM25F's tf)."""
    terms: dict[str, int]
    """The passage's terms and how often each occurs in the whole part."""
    worth: float = 1.0
    """As in Candidate."""


class Survey(_Value):
    """What round one learns from a part."""

    words: int = 0
    """In the texts that hold an asked term."""
    passages: int = 0
    frequency: dict[str, int] = {}
    """In how many passages each asked term occurs."""
    hints: list[Hint] = []
    forms: dict[str, str] = {}
    """The hints' terms as the documents write them, where that is not the term itself."""
    unread: list[Unread] = []
    notes: list[str] = []


class Candidate(_Value):
    """A passage that may be quoted."""

    text: str
    file: str
    line: int
    page: int | None = None
    heading: str = ""
    frequencies: dict[str, float]
    worth: float = 1.0
    """Factor for form: a question, a fragment or a sentence that leans on the one before it is worth less."""


class Found(_Value):
    """What round two brings back from a part."""

    frequency: dict[str, int] = {}
    candidates: list[Candidate] = []


class Quotation(_Value):
    """A sentence as it stands in a file."""

    text: str
    """Verbatim, but for white space: every run of it is one space here."""
    file: str
    """Path relative to the folder, with forward slashes."""
    line: int
    """1-based line of the file on which the text begins; in a PDF, of the page's extracted text."""
    score: float
    """Relative to the best quotation, which has 1."""
    page: int | None = None
    """1-based page of a PDF, else None."""
    heading: str = ""
    """The headings above it."""


class Searched(_Value):
    """How much was read."""

    files: int = 0
    parts: int = 0
    passages: int = 0
    """Sentences, estimated by the length of the text."""


class Report(_Value):
    """The answer to a question over a folder."""

    question: str
    answer: str
    """Paragraphs with [n] for the n-th quotation, then what could not be read."""
    quotations: list[Quotation] = []
    """Best first."""
    searched: Searched = Searched()
    unread: list[Unread] = []
    """At most `UNREAD_LIMIT` of them; a note says how many more there were."""
    method: Literal["quotations", "model", "none"] = "none"
    """Who wrote the answer; `none`: there was nothing to answer from."""
    refined_with: list[str] = []
    """Words that round one added to the question's own."""
    sub_questions: list[str] = []
    """What a model made of the question; empty without one."""
    notes: list[str] = []
    """What the reader should know about how this came about: encodings guessed, citations removed."""


UNREAD_LIMIT = 200
