from pathlib import Path

import pytest

from tests.fixtures.documents import pdf
from workers.agents.retrieval.listing import slice_file
from workers.agents.retrieval.models import Kind, Slice
from workers.agents.retrieval.reading import Unreadable, cut_text, decide_encoding, file_encoding, read_slice

ENGLISH = "The café keeps its état in a journal. " * 40
RUSSIAN = "Состояние агента хранится в журнале, и после сбоя он продолжает работу сначала. " * 20


def text_of(folder: Path, piece: Slice) -> str:
    return "".join(text.text for text in read_slice(str(folder), piece))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_in_any_form_is_read_without_a_note(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes(ENGLISH.encode(encoding))
    [text] = read_slice(str(tmp_path), Slice(file="a.txt", kind="text"))
    assert text.text == ENGLISH
    assert text.note is None


@pytest.mark.parametrize(("words", "encoding"), [(ENGLISH, "cp1252"), (RUSSIAN, "cp1251"), (RUSSIAN, "koi8-r")])
def test_old_encodings_are_guessed_and_said(tmp_path: Path, words: str, encoding: str) -> None:
    (tmp_path / "old.txt").write_bytes(words.encode(encoding))
    [text] = read_slice(str(tmp_path), Slice(file="old.txt", kind="text"))
    assert text.text == words
    assert text.note is not None
    assert text.note.startswith("old.txt is not UTF-8: read as ")


def test_binary_data_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(bytes(range(256)) * 40)
    with pytest.raises(Unreadable, match="binary"):
        text_of(tmp_path, Slice(file="a.txt", kind="text"))


def test_a_path_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    with pytest.raises(Unreadable, match="outside"):
        text_of(tmp_path / "inner", Slice(file="../secret.txt", kind="text"))


def test_old_line_ends_become_new_ones(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\rthree\n")
    assert text_of(tmp_path, Slice(file="a.txt", kind="text")) == "one\ntwo\nthree\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_slices_of_a_file_are_the_file(tmp_path: Path, encoding: str, end: str) -> None:
    words = end.join(f"Line {number} of the café's long text, in French été.{end}" for number in range(1, 800))
    path = tmp_path / "a.txt"
    path.write_bytes(words.encode(encoding))
    name, cuts = cut_text(path, 10_000)
    assert len(cuts) > 3
    assert cuts[0][0] == 0
    assert [start for start, _, _ in cuts[1:]] == [end_ for _, end_, _ in cuts[:-1]]
    plain = words.replace("\r\n", "\n")
    read = ""
    for start, stop, line in cuts:
        assert stop - start <= 10_000
        assert read.count("\n") + 1 == line
        read += text_of(tmp_path, Slice(file="a.txt", kind="text", start=start, end=stop, encoding=name))
    assert read == plain


@pytest.mark.parametrize("words", ["€" * 20_000, "word " * 20_000, "x" * 90_000])
def test_text_without_line_ends_is_cut_between_characters(tmp_path: Path, words: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(words, encoding="utf-8")
    name, cuts = cut_text(path, 10_000)
    pieces = [
        text_of(tmp_path, Slice(file="a.txt", kind="text", start=start, end=stop, encoding=name))
        for start, stop, _ in cuts
    ]
    assert "".join(pieces) == words
    assert {line for _, _, line in cuts} == {1}


def test_whole_file_and_slice_agree_on_the_encoding(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-16-le", "cp1252", "cp1251"):
        words = ENGLISH if encoding != "cp1251" else RUSSIAN
        path = tmp_path / "a.txt"
        path.write_bytes(words.encode(encoding))
        assert file_encoding(path) == decide_encoding(path.read_bytes())


def test_a_pdf_is_read_page_by_page(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf([["The first page says this.", "And a second line."], ["The second page."]]))
    pages = list(read_slice(str(tmp_path), Slice(file="a.pdf", kind="pdf")))
    assert [page.page for page in pages] == [1, 2]
    assert pages[0].text.strip().split("\n") == ["The first page says this.", "And a second line."]
    [second] = read_slice(str(tmp_path), Slice(file="a.pdf", kind="pdf", start=1, end=2))
    assert second.text.strip() == "The second page."


def test_a_large_pdf_is_cut_into_ranges_of_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.agents.retrieval.listing.SLICE_BYTES", 1000)
    path = tmp_path / "a.pdf"
    path.write_bytes(pdf([[f"Page {number} of many."] for number in range(45)]))
    assert [(piece.start, piece.end) for piece in slice_file(path, "a.pdf", "pdf")] == [(0, 20), (20, 40), (40, 45)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"%PDF-1.4 broken", "no PDF"), (b"", "no PDF"), (pdf([[], []]), "no text")],
)
def test_a_pdf_without_text_or_sense_is_unreadable(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.pdf").write_bytes(content)
    with pytest.raises(Unreadable, match=reason):
        text_of(tmp_path, Slice(file="a.pdf", kind="pdf"))


def test_an_encrypted_pdf_says_so(tmp_path: Path) -> None:
    from pypdf import PdfReader, PdfWriter

    plain = tmp_path / "plain.pdf"
    plain.write_bytes(pdf([["Some text on a page."]]))
    writer = PdfWriter(clone_from=PdfReader(plain))
    writer.encrypt("a password", algorithm="RC4-128")
    with (tmp_path / "a.pdf").open("wb") as file:
        writer.write(file)
    with pytest.raises(Unreadable, match="encrypted"):
        text_of(tmp_path, Slice(file="a.pdf", kind="pdf"))


@pytest.mark.parametrize("kind", ["text", "markdown", "html"])
def test_a_file_that_is_gone_is_unreadable(tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(Unreadable, match="cannot be opened"):
        text_of(tmp_path, Slice(file="gone.txt", kind=kind))
