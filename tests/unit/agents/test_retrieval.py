import random
from pathlib import Path

import pytest

from tests.fixtures.documents import pdf
from workers.agents.retrieval import listing
from workers.agents.retrieval.models import Quotation, Report
from workers.agents.retrieval.reporting import finished_report
from workers.agents.retrieval.verifying import check_quotation, verify
from workers.agents.tools import quotations_under

CORPUS = Path(__file__).parents[2] / "fixtures" / "corpus"
QUESTION = "How should agent state be kept so that a crashed agent can resume?"


def ask(question: str, folder: Path) -> list[Quotation]:
    return quotations_under(folder, question)


def report(quotations: list[Quotation]) -> Report:
    return finished_report("", "", quotations=quotations)


@pytest.mark.parametrize(
    ("question", "about", "least"),
    [
        (QUESTION, "state/", 6),
        ("What happens when two workers own the same agent?", "state/", 4),
        ("Why is a long journal slow to recover from?", "state/", 3),
        ("When should roses be watered and fed?", "garden/", 4),
        ("Which soil holds water?", "garden/", 2),
    ],
)
def test_quotations_speak_of_what_was_asked(question: str, about: str, least: int) -> None:
    found = ask(question, CORPUS)
    assert len(found) >= least
    assert [one.file for one in found[:least] if not one.file.startswith(about)] == []


def test_the_best_quotation_is_the_answer() -> None:
    assert ask("How do I write a good resume?", CORPUS)[0].text == "A resume should be kept short."
    assert "compost" in ask("What are roses fed with?", CORPUS)[0].text
    assert ask("How long is a lease?", CORPUS)[0].file == "state/leases.txt"


def test_every_quotation_stands_at_its_place() -> None:
    for question in (QUESTION, "roses and soil in winter", "agents, journals and leases", "book the train"):
        found = ask(question, CORPUS)
        assert verify(report(found), str(CORPUS)) == []
        for one in found:
            if not one.file.endswith(".html"):  # and by a rule that owes nothing to ours
                lines = (CORPUS / one.file).read_text().split("\n")[one.line - 1 :]
                below = " ".join(" ".join(lines).split())
                assert below.index(one.text) < len(lines[0])


def test_code_scripts_and_menus_are_never_quoted() -> None:
    texts = " ".join(one.text for one in ask(QUESTION, CORPUS))
    assert "store.save" not in texts
    assert "var text" not in texts
    assert "Home, agents" not in texts


def test_a_changed_quotation_is_found_out() -> None:
    good = ask(QUESTION, CORPUS)[0]
    assert check_quotation(good, str(CORPUS)) is None
    changes: list[dict[str, object]] = [
        {"text": good.text.replace("state", "fate")},
        {"line": good.line - 1},
        {"line": good.line + 1},
        {"line": 10_000},
        {"file": "state/leases.txt"},
        {"file": "gone.md"},
        {"file": "../documents.py"},
        {"text": "  "},
    ]
    for change in changes:
        assert check_quotation(good.model_copy(update=change), str(CORPUS)) is not None, change


def test_one_large_file_gives_the_same_as_many_small_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is asked of the collection's statistics must not depend on how it is cut.
    chance = random.Random(3)
    colours = ["red", "blue", "green"]
    filler = [
        f"The {chance.choice(colours)} box {number} stands on shelf {chance.randrange(99)} of the hall."
        for number in range(3000)
    ]
    for number, place in enumerate((200, 1500, 2900)):
        filler.insert(place, f"The lost parcel number {number} was found behind the heater again.")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "all.txt").write_text("\n\n".join(filler))
    whole = ask("Where was the lost parcel found?", tmp_path / "one")
    monkeypatch.setattr(listing, "SLICE_BYTES", 20_000)
    cut = ask("Where was the lost parcel found?", tmp_path / "one")
    assert len(listing.list_files(str(tmp_path / "one")).slices) > 5
    assert {(one.text, one.line) for one in whole[:3]} == {(one.text, one.line) for one in cut[:3]}
    assert all("parcel" in one.text for one in whole[:3])
    assert verify(report(cut), str(tmp_path / "one")) == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_quotations_of_odd_encodings_stand_at_their_place(tmp_path: Path, encoding: str) -> None:
    words = "\r\n".join(
        [
            "Une page",
            "",
            "Words about nothing at all stand first.",
            "",
            "The café keeps the journal",
            "in the cellar of the house.",
        ]
    )
    (tmp_path / "a.txt").write_bytes(words.encode(encoding))
    found = ask("Where does the café keep its journal?", tmp_path)
    assert (found[0].text, found[0].line) == ("The café keeps the journal in the cellar of the house.", 5)
    assert verify(report(found), str(tmp_path)) == []


def test_quotations_of_a_pdf_have_page_and_line(tmp_path: Path) -> None:
    pages = [
        ["Nothing to see on the first page."],
        ["Some words to begin with here.", "The journal is kept in the cellar."],
    ]
    (tmp_path / "a.pdf").write_bytes(pdf(pages))
    found = ask("Where is the journal kept?", tmp_path)
    assert (found[0].page, found[0].line) == (2, 2)
    assert verify(report(found), str(tmp_path)) == []


def test_one_endless_line_is_searched_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.agents.retrieval.verifying._PIECE", 5000)
    monkeypatch.setattr(listing, "SLICE_BYTES", 20_000)
    words = "Filler stands here for a while. " * 3000
    (tmp_path / "a.txt").write_text(words + "The journal is kept in the cellar. " + words)
    found = ask("Where is the journal kept?", tmp_path)
    assert (found[0].text, found[0].line) == ("The journal is kept in the cellar.", 1)
    assert verify(report(found), str(tmp_path)) == []


def test_the_same_text_in_many_files_is_quoted_once(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.md").write_text("The journal is kept in the cellar of the house.\n")
    assert len(ask("Where is the journal kept?", tmp_path)) == 1


def test_a_sentence_in_every_file_does_not_crowd_out_the_rest(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number:03}.md").write_text("A journal that is kept well is kept in the cellar, it is said.\n")
    (tmp_path / "last.md").write_text("The house has a journal of its own.\n\nIn the cellar it keeps wine only.\n")
    assert {one.file for one in ask("Where is the journal kept?", tmp_path)} == {"000.md", "last.md"}


def test_equal_folders_give_equal_answers() -> None:
    assert ask(QUESTION, CORPUS) == ask(QUESTION, CORPUS)
