import os
from pathlib import Path

import pytest

from workers.agents.retrieval import listing
from workers.agents.retrieval.listing import list_files, plan_parts
from workers.agents.retrieval.models import Listing, Slice


def names(found: Listing) -> list[str]:
    return [piece.file for piece in found.slices]


def reasons(found: Listing) -> dict[str, str]:
    return {one.file: one.reason for one in found.unread}


def test_files_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    for name in ("b.md", "a/z.txt", "a/y.html", "a.rst", "c/d/e.PDF", "c/d/f.png", "g"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("words")
    found = list_files(str(tmp_path))
    assert names(found) == ["a/y.html", "a/z.txt", "a.rst", "b.md", "c/d/e.PDF"]
    assert found.other == {".png": 1, "no suffix": 1}
    assert found.unread == []
    assert found.after is None


def test_a_long_listing_comes_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "CHUNK_FILES", 7)
    for number in range(30):
        place = tmp_path / f"d{number % 4}" / "x.y"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"f{number:02}.md").write_text("words")
    whole: list[str] = []
    after: str | None = None
    chunks = 0
    while True:
        found = list_files(str(tmp_path), after)
        chunks += 1
        whole += names(found)
        after = found.after
        if after is None:
            break
    assert chunks == 5
    assert whole == sorted(whole)
    assert len(set(whole)) == 30


@pytest.mark.parametrize("made", ["nothing", "file"])
def test_a_folder_that_is_none_says_so(tmp_path: Path, made: str) -> None:
    place = tmp_path / "here"
    if made == "file":
        place.write_text("words")
    found = list_files(str(place))
    assert found.problem == ("missing" if made == "nothing" else "not_a_folder")
    assert found.place == str(place)


def test_links_are_followed_inside_and_never_twice(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.md").write_text("words")
    (tmp_path / "outside.md").write_text("secret")
    (folder / "up").symlink_to(folder)
    (folder / "sub" / "round").symlink_to(folder / "sub")
    (folder / "again.md").symlink_to(folder / "sub" / "a.md")
    (folder / "other").symlink_to(folder / "sub")
    (folder / "out.md").symlink_to(tmp_path / "outside.md")
    (folder / "gone.md").symlink_to(folder / "nowhere.md")
    (folder / "self.md").symlink_to(folder / "self.md")
    found = list_files(str(folder))
    assert names(found) == ["sub/a.md"]
    told = reasons(found)
    assert "loop" in told["up"]
    assert "loop" in told["sub/round"]
    assert told["out.md"] == "a symbolic link out of the folder: not followed"
    assert told["gone.md"] == "a symbolic link that leads nowhere"
    assert told["self.md"] == "a symbolic link that leads to itself"
    assert set(told) == {"up", "sub/round", "out.md", "gone.md", "self.md"}


def test_a_mounted_config_map_is_read(tmp_path: Path) -> None:
    (tmp_path / "..2026_01").mkdir()
    (tmp_path / "..2026_01" / "a.md").write_text("words")
    (tmp_path / "..data").symlink_to("..2026_01")
    (tmp_path / "a.md").symlink_to("..data/a.md")
    found = list_files(str(tmp_path))
    assert names(found) == ["a.md"]
    assert found.unread == []


def test_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    for name in (".git/a.md", "node_modules/b.md", ".hidden.md", "c.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("words")
    assert names(list_files(str(tmp_path))) == ["c.md"]


def test_a_pipe_is_reported_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    assert "regular file" in reasons(list_files(str(tmp_path)))["pipe.md"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("words")
    (tmp_path / "a.md").chmod(0)
    (tmp_path / "shut").mkdir(mode=0)
    told = reasons(list_files(str(tmp_path)))
    assert "Permission denied" in told["a.md"]
    assert "cannot be listed" in told["shut"]


def test_a_name_that_is_no_text_is_reported(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.md"))).write_text("words")
    assert reasons(list_files(str(tmp_path))) == {"bad\\udcff.md": "its name is not valid text"}


def test_each_slice_is_a_part_until_there_are_many(tmp_path: Path) -> None:
    slices = [Slice(file=f"{number}.md", kind="text", weight=10_000) for number in range(1000)]
    assert len(plan_parts("x", slices[:100])) == 100
    parts = plan_parts("x", slices)
    assert 100 <= len(parts) <= 160
    assert [piece for part in parts for piece in part.slices] == slices


def test_no_part_is_much_heavier_than_a_slice(tmp_path: Path) -> None:
    slices = [Slice(file=f"{number}.md", kind="text", weight=listing.SLICE_BYTES) for number in range(600)]
    assert all(len(part.slices) == 1 for part in plan_parts("x", slices))


def test_no_slices_make_no_parts() -> None:
    assert plan_parts("x", []) == []
