"""What must hold for every text, however odd."""

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from workers.agents.retrieval.listing import KINDS
from workers.agents.retrieval.models import Kind, Part, Quotation, Slice
from workers.agents.retrieval.passages import blocks, sentences, worth
from workers.agents.retrieval.reading import BLOCK_BREAK, HEADING_BREAK, cut_text, html_text, read_slice
from workers.agents.retrieval.refining import first_query, refine
from workers.agents.retrieval.scoring import search_part, survey_part
from workers.agents.retrieval.verifying import check_quotation
from workers.agents.retrieval.words import finder, stem, terms

PIECES = (
    "agent state crash",
    "The agent is kept here. ",
    "\n",
    "\n\n",
    "# ",
    "```\n",
    "> ",
    "- ",
    "| a | b |\n",
    "===\n",
    "---\n",
    "    ",
    ".. note::\n",
    "::\n",
    "<p>",
    "</p>",
    "<b>",
    "<script>",
    "</script>",
    "<!-- ",
    " -->",
    "<![",
    "&amp;",
    "&#10;",
    "<h1>",
    "İstanbul ",
    "e.g. ",
    "! ",
    "\\n",
    "\r\n",
    "\r",
    "\x0c",
    "\u2028",
    "\x1c",
    "é",
    "日本。",
    "\ufeff",
    "🙂",
    "word " * 100,
    "[a](b) ",
    "\x00",
    "<",
    "&",
)
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=40).map("".join)
KIND = st.sampled_from(["text", "markdown", "rst", "html"])


@given(TEXTS, KIND)
def test_every_sentence_is_a_stretch_of_its_block(text: str, kind: Kind) -> None:
    shown = html_text(text) if kind == "html" else text
    last = 0
    for block in blocks(shown, kind):
        assert 0 <= block.start < block.end <= len(shown)
        assert block.start >= last or kind == "html"
        last = block.start
        for sentence in sentences(shown, block):
            assert block.start <= sentence.start < sentence.end <= block.end
            assert " ".join(shown[sentence.start : sentence.end].split()) == sentence.text
            assert 0 <= worth(sentence.text) <= 1


@given(TEXTS)
def test_html_keeps_every_line(text: str) -> None:
    shown = html_text(text.replace("\r", ""))
    assert shown.count("\n") <= text.count("\n")
    assert BLOCK_BREAK not in shown or any(mark in text for mark in ("<", BLOCK_BREAK))
    assert HEADING_BREAK not in shown or "<h1>" in text or HEADING_BREAK in text


@given(TEXTS, KIND, st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]))
def test_whatever_is_offered_stands_in_the_file(text: str, kind: Kind, encoding: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        suffix = next(ending for ending, known in KINDS.items() if known == kind)
        name = f"a{suffix}"
        (Path(folder) / name).write_bytes(text.encode(encoding, "ignore"))
        part = Part(folder=folder, slices=[Slice(file=name, kind=kind)])
        first = first_query(["agent", "keep"])
        survey = survey_part(part, first)
        found = search_part(part, refine(first, [survey], parts=1))
        for one in found.candidates:
            quotation = Quotation(text=one.text, file=one.file, line=one.line, score=1)
            assert check_quotation(quotation, folder) is None


@given(TEXTS, st.sampled_from(["utf-8", "utf-16", "utf-16-be", "utf-8-sig", "utf-32"]), st.integers(16, 400))
def test_slices_are_the_whole_file(text: str, encoding: str, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.txt"
        path.write_bytes(
            (text.replace("\x00", "").replace("\ufeff", "") + "plain words " * 50).encode(encoding, "ignore")
        )
        whole = "".join(one.text for one in read_slice(folder, Slice(file="a.txt", kind="text")))
        name, cuts = cut_text(path, size)
        read = ""
        for start, end, line in cuts:
            assert line == read.count("\n") + 1
            piece = Slice(file="a.txt", kind="text", start=start, end=end, line=line, encoding=name)
            read += "".join(one.text for one in read_slice(folder, piece))
        assert read == whole


@given(st.text(max_size=30))
def test_a_term_is_found_wherever_it_stands(word: str) -> None:
    assert all(finder((term,)).search(word.lower()) for term in terms(word))
    assert stem(word) == stem(word)
