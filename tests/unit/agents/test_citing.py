import pytest

from workers.agents.asking import answer_messages, plan_messages, read_plan
from workers.agents.retrieval.citing import check_citations
from workers.agents.retrieval.models import Quotation

QUOTATIONS = [
    Quotation(text="The state is kept in a journal.", file="a.md", line=1, score=1),
    Quotation(text="A lease lasts a few seconds.", file="b.md", line=2, score=0.5),
    Quotation(text="Roses want sun in the morning.", file="c.md", line=3, score=0.4),
]


def test_citations_that_hold_stay() -> None:
    answer = "The state stands in a journal [1]. A lease lasts seconds [2]."
    checked = check_citations(answer, QUOTATIONS)
    assert checked.answer == answer
    assert checked.cited == [1, 2]
    assert checked.notes == []


def test_a_citation_of_nothing_is_removed_and_said() -> None:
    checked = check_citations("The state stands in a journal [1][7]. A lease lasts seconds [0].", QUOTATIONS)
    assert checked.answer == "The state stands in a journal [1]. A lease lasts seconds."
    assert checked.cited == [1]
    assert checked.notes == ["Removed from the answer: citations of quotations that do not exist ([7], [0])."]


def test_a_citation_beside_the_point_is_removed_and_said() -> None:
    checked = check_citations("The state stands in a journal [3]. It is kept there [1].", QUOTATIONS)
    assert checked.answer == "The state stands in a journal. It is kept there [1]."
    assert len(checked.notes) == 1
    assert "[3]" in checked.notes[0]


@pytest.mark.parametrize(
    ("written", "kept"),
    [("[1, 2]", "[1][2]"), ("[1; 9]", "[1]"), ("[1-2]", "[1][2]"), ("[2\u20131]", "[2][1]"), ("[99999999999999]", "")],
)
def test_lists_and_ranges_are_understood(written: str, kept: str) -> None:
    said = "The state of the journal outlasts the lease of some seconds"
    checked = check_citations(f"{said} {written}.", QUOTATIONS)
    assert checked.answer == (f"{said} {kept}." if kept else f"{said}.")


@pytest.mark.parametrize("answer", ["", "No marks at all.", "[x] [ ] [1", "[-1]", "[]"])
def test_an_answer_without_citations_cites_nothing(answer: str) -> None:
    assert check_citations(answer, QUOTATIONS).cited == []


def test_a_plan_is_read_from_json_or_lines() -> None:
    assert read_plan('Sure: ["What is kept?", " Where\\nis it? ", 3, ""]') == ["What is kept?", "Where is it?"]
    assert read_plan("1. What is kept?\n- Where is it?\nDone.") == ["What is kept?", "Where is it?"]
    assert read_plan("[broken") == []
    assert len(read_plan(str([f"question {number}?" for number in range(9)]).replace("'", '"'))) == 4


def test_the_model_is_given_numbered_quotations() -> None:
    system, user = answer_messages("Where?", QUOTATIONS)
    assert system["role"] == "system"
    assert "[2] (b.md) A lease lasts a few seconds." in user["content"]
    assert plan_messages("Where?")[-1] == {"role": "user", "content": "Where?"}
