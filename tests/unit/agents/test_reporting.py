import pytest

from workers.agents.retrieval import reporting
from workers.agents.retrieval.models import UNREAD_LIMIT, Listing, Quotation, Searched, Unread

QUOTATIONS = [
    Quotation(text="The **state** is kept in [a log](x.md).", file="a.md", line=9, score=1),
    Quotation(text="Steps come back from :ref:`the store <store>`", file="b.rst", line=2, score=0.8),
    Quotation(text="It begins here.", file="a.md", line=3, score=0.5),
    Quotation(text="A fourth one stands here.", file="c.md", line=1, score=0.4),
]


def test_an_answer_of_quotations_says_that_it_is_one() -> None:
    lead, first, second = reporting.extractive_answer(QUOTATIONS).split("\n\n")
    assert lead == reporting.NO_MODEL
    assert "no model is configured" in lead.lower()
    assert "these are quotations" in lead
    assert first == "It begins here. [3] The state is kept in a log. [1] Steps come back from `the store`. [2]"
    assert second == "A fourth one stands here. [4]"


def test_what_could_not_be_read_stands_below_the_answer() -> None:
    unread = [Unread(file=f"{number}.pdf", reason="it is encrypted") for number in range(7)]
    answer = reporting.with_unread("The answer.", unread)
    assert answer.startswith("The answer.\n\nNot read (7): 0.pdf: it is encrypted; 1.pdf")
    assert answer.endswith("; and 2 more.")
    assert reporting.with_unread("The answer.", []) == "The answer."


def test_a_report_stays_small_whatever_cannot_be_read() -> None:
    unread = [Unread(file=f"{number}.pdf", reason="it is encrypted") for number in range(UNREAD_LIMIT + 30)]
    report = reporting.finished_report("q", "a", unread=unread, notes=["one", "one"])
    assert len(report.unread) == UNREAD_LIMIT
    assert report.notes == ["one", f"30 more files could not be read; the first {UNREAD_LIMIT} are listed."]
    assert report.method == "none"


@pytest.mark.parametrize(
    ("problem", "words"), [("missing", "no such folder"), ("not_a_folder", "a file, not"), ("unreadable", "may not")]
)
def test_a_folder_that_is_none_gets_clear_words(problem: str, words: str) -> None:
    listing = Listing.model_validate({"problem": problem, "place": "/somewhere/docs"})
    told = reporting.folder_problem(listing, "docs")
    assert words in told
    assert "/somewhere/docs" in told


def test_nothing_gets_clear_words() -> None:
    assert reporting.no_question([]) == "The question is empty: ask something."
    assert "('how', 'is', 'it')" in reporting.no_question(["how", "is", "it"])
    assert reporting.no_documents("docs", {}, []) == "The folder 'docs' is empty: there is nothing to read."
    assert "(3 .png, 1 .py)" in reporting.no_documents("docs", {".py": 1, ".png": 3}, [])
    empty = reporting.why_nothing("docs", ["zebra"], Searched(files=2))
    assert empty == "The folder 'docs' has 2 documents, but there is no text in it."
    assert reporting.why_nothing("docs", ["zebra"], Searched()).startswith("None of the documents")
    found = reporting.why_nothing("docs", ["zebra"], Searched(files=1200, passages=9))
    assert found == "Nothing was found: no passage of 1,200 documents speaks of 'zebra'."


def test_few_quotations_are_said_to_be_few() -> None:
    assert reporting.few_found(QUOTATIONS) == []
    assert reporting.few_found(QUOTATIONS[:1]) == ["The folder supports only 1 quotation."]
