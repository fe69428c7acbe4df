"""The agent as a whole, its steps in place."""

import asyncio
import json
from pathlib import Path

import pytest

from agentq.core.errors import InvalidArguments
from agentq.testing import run_here
from tests.fixtures.documents import pdf
from tests.fixtures.model_server import Asked, Line, model_server
from workers.agents.research import research
from workers.agents.retrieval import listing, reporting
from workers.agents.retrieval.models import Report
from workers.agents.retrieval.verifying import verify

CORPUS = Path(__file__).parents[2] / "fixtures" / "corpus"
QUESTION = "How should agent state be kept so that a crashed agent can resume?"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "NAME", "KEY"):
        monkeypatch.delenv(f"AGENTQ_MODEL_{name}", raising=False)


def ask(question: str, folder: Path | str) -> Report:
    report: Report = asyncio.run(run_here(research, question, str(folder)))
    return report


def test_a_question_is_answered_by_quotations() -> None:
    report = ask(QUESTION, CORPUS)
    assert report.method == "quotations"
    assert report.answer.startswith(reporting.NO_MODEL)
    assert len(report.quotations) == 6
    assert {one.file.split("/")[0] for one in report.quotations} == {"state"}
    assert [one.score for one in report.quotations] == sorted((one.score for one in report.quotations), reverse=True)
    assert report.quotations[0].score == 1.0
    assert all(f"[{number}]" in report.answer for number in range(1, 7))
    assert verify(report, str(CORPUS)) == []
    assert report.searched.files == 8
    assert report.refined_with
    assert report.unread == []
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_what_cannot_be_read_is_reported_and_not_fatal(tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text("The journal is kept in the cellar. The lease is kept there too, in a box.\n")
    (tmp_path / "old.txt").write_bytes("Le café garde le journal de l'été à la cave.\n".encode("cp1252"))
    (tmp_path / "bad.pdf").write_bytes(b"%PDF nothing")
    (tmp_path / "scan.pdf").write_bytes(pdf([[]]))
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "odd.html").write_text("<p>The journal <![weird[ is kept <b>in here</b>, it says.</p>")
    report = ask("Where is the journal kept?", tmp_path)
    told = {one.file: one.reason for one in report.unread}
    assert set(told) == {"bad.pdf", "scan.pdf", "binary.txt", "loop"}
    assert "Not read (4): " in report.answer
    assert "binary.txt: it holds binary data, not text" in report.answer
    assert "old.txt is not UTF-8: read as cp1252 (a guess)." in report.notes
    assert report.searched.files == 3
    assert verify(report, str(tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "words"), [("gone", "there is no such folder"), ("a.md", "it is a file, not a folder")]
)
def test_a_folder_that_is_none_is_a_wrong_argument(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "a.md").write_text("words")
    with pytest.raises(InvalidArguments, match=words) as caught:
        ask(QUESTION, tmp_path / name)
    assert caught.value.parameter == "folder"


def test_nothing_to_answer_from_gets_clear_words(tmp_path: Path) -> None:
    assert ask(QUESTION, tmp_path).answer == f"The folder {str(tmp_path)!r} is empty: there is nothing to read."
    (tmp_path / "a.png").write_text("no document")
    assert "It holds files of other kinds (1 .png)." in ask(QUESTION, tmp_path).answer
    (tmp_path / "a.md").write_text("")
    assert "but there is no text in it" in ask(QUESTION, tmp_path).answer
    (tmp_path / "a.md").write_text("Roses want sun in the morning and shade at noon.\n")
    report = ask("zebras and camels", tmp_path)
    assert report.answer == "Nothing was found: no passage of 1 document speaks of 'zebras', 'camels'."
    assert report.method == "none"
    assert "The question is empty" in ask("  ", tmp_path).answer
    assert "('how', 'is', 'it')" in ask("How is it?", tmp_path).answer


def test_few_quotations_are_said_to_be_few(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("The journal is kept in the cellar of the house.\n")
    report = ask("Where is the journal kept?", tmp_path)
    assert len(report.quotations) == 1
    assert report.notes == ["The folder supports only 1 quotation."]


def test_a_long_listing_comes_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "CHUNK_FILES", 10)
    for number in range(45):
        (tmp_path / f"{number:02}.md").write_text(f"Box {number} of the journal is kept on shelf {number} here.\n")
    report = ask("Where is the journal kept?", tmp_path)
    assert report.searched.files == 45
    assert len(report.quotations) >= 3


def script(asked: Asked) -> Line:
    """Plans, then writes an answer with one good, one unknown and one misplaced citation."""
    if "plan a search" in asked.messages[0]["content"]:
        return Line(content='["How does a lease work?", "What does a journal hold?"]', tokens=(7, 3))
    return Line(content="A crashed agent resumes from its kept state [1]. Roses smell [2]. More is said [77].")


def configure(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AGENTQ_MODEL_URL", url)
    monkeypatch.setenv("AGENTQ_MODEL_NAME", "tiny")


def test_a_model_plans_and_writes_and_its_citations_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with model_server(script) as server:
        configure(monkeypatch, server.url)
        report = ask(QUESTION, CORPUS)
    assert report.method == "model"
    assert report.answer == "A crashed agent resumes from its kept state [1]. Roses smell. More is said."
    assert report.sub_questions == ["How does a lease work?", "What does a journal hold?"]
    assert len(report.notes) == 2
    assert verify(report, str(CORPUS)) == []
    assert len(server.asked) == 2
    given = server.asked[1].messages[1]["content"]
    assert all(f"[{number}] ({one.file}) {one.text}" in given for number, one in enumerate(report.quotations, 1))


def test_an_answer_without_citations_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    with model_server(lambda _: Line(content="I just know it.")) as server:
        configure(monkeypatch, server.url)
        report = ask(QUESTION, CORPUS)
    assert report.method == "quotations"
    assert report.answer.startswith(reporting.MODEL_FAILED)
    assert "set aside" in report.notes[-1]


def test_a_model_that_refuses_leaves_the_quotations(monkeypatch: pytest.MonkeyPatch) -> None:
    with model_server(lambda _: Line(status=401, body=json.dumps({"error": "no"}))) as server:
        configure(monkeypatch, server.url)
        report = ask(QUESTION, CORPUS)
    assert report.method == "quotations"
    assert len(report.quotations) >= 6
    assert "The model did not plan the search" in report.notes[0]
    assert "status 401" in report.notes[0]
    assert "The model did not write the answer" in report.notes[1]
