import re
from pathlib import Path

import pytest

from workers.agents.retrieval.related import related
from workers.agents.retrieval.words import WORD, finder, question_words, stem, terms

CORPUS = Path(__file__).parents[2] / "fixtures" / "corpus"


@pytest.mark.parametrize(
    "forms",
    [
        "resume resumes resumed resuming resumable resumption",
        "persist persisted persisting persistence persistent",
        "recover recovers recovered recovery recoveries",
        "keep keeps kept keeping",
        "state states stated",
        "durable durability",
        "reliable reliably reliability",
        "document documents documentation",
        "policy policies",
        "store stored stores storing storage",
    ],
)
def test_forms_of_one_word_are_one_term(forms: str) -> None:
    assert len({stem(form) for form in forms.split()}) == 1


@pytest.mark.parametrize(
    ("one", "other"), [("agent", "agency"), ("work", "worker"), ("status", "state"), ("class", "clash")]
)
def test_different_words_stay_apart(one: str, other: str) -> None:
    assert stem(one) != stem(other)


def test_the_finder_never_misses_a_form() -> None:
    spoken = {word for file in CORPUS.rglob("*") if file.is_file() for word in WORD.findall(file.read_text().lower())}
    missed = [word for word in spoken if not finder((stem(word),)).search(word)]
    assert missed == []
    assert finder(("keep",)).search("what was kept")


def test_an_empty_finder_finds_nothing() -> None:
    assert not finder(()).search("anything")


def test_terms_leave_common_words_out() -> None:
    assert terms("How is the agent's state kept?") == ["agent", "stat", "keep"]


def test_a_question_is_taken_apart() -> None:
    asked = question_words("How should the agents' state be kept, and kept where?")
    assert asked.terms == {"agent": "agents", "stat": "state", "keep": "kept"}
    assert asked.common == ["how", "should", "the", "be", "and", "where"]


def test_words_of_other_scripts_are_words() -> None:
    assert terms("Где хранится состояние агента") == ["где", "хранится", "состояние", "агента"]
    assert terms("État où l'été") == ["état", "où", "été"]


def test_related_terms_mean_about_the_same() -> None:
    assert stem("store") in related(stem("keep"))
    assert stem("recover") in related(stem("resume"))
    assert related("xyzzy") == []
    assert all(re.fullmatch(r"\w+", term) for term in related(stem("crash")))
