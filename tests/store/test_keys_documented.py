"""docs/protocol.md names every record and every script, and nothing else."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from agentq.store import keys
from agentq.store.keys import PERMANENT, Keys
from agentq.store.runner import EVENT_LIMIT, ScriptSet

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
SOURCES = {
    source.name: source.read_text(encoding="utf-8")
    for folder in (resources.files("agentq.store.scripts"), resources.files("agentq.store.scripts").joinpath("lib"))
    for source in folder.iterdir()
    if source.name.endswith(".lua")
}


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table rows below a heading, up to the next one."""
    section = PAGE.split(f"\n{heading}\n", 1)[1]
    section = re.split(r"^#", section, maxsplit=1, flags=re.MULTILINE)[0]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in cells]


def names(cell: str) -> list[str]:
    return re.findall(r"`([a-z]+)`", cell)


def test_every_record_is_listed_with_the_parts_of_its_key() -> None:
    of_a_run = {names(row[0])[0]: row[1] for row in rows("### Of a run") if len(row) == 4}
    assert of_a_run == {kind: _parts(parts, "{root}") for kind, parts in keys._RUN_KEYS.items()}
    of_all = {names(row[0])[0]: row[1] for row in rows("### Of the whole store")}
    assert of_all == {kind: _parts(parts, "") for kind, parts in keys._PLAIN_KEYS.items()}


def _parts(parts: tuple[str, ...], root: str) -> str:
    text = ":".join([root, *parts[1:]] if root else parts)
    return f"`{text}`" if text else ""


def test_records_without_an_end_are_those_that_may_be() -> None:
    endless = {names(row[0])[0] for row in rows("### Of the whole store") if row[4] in ("none", "when empty")}
    assert endless == PERMANENT


def test_every_script_is_listed() -> None:
    listed = {names(row[0])[0] for row in rows("## Scripts")}
    assert listed == set(ScriptSet(Keys(), retention_ms=1).texts)


def test_every_record_that_a_script_touches_itself_is_in_its_row() -> None:
    for row in rows("## Scripts"):
        source = resources.files("agentq.store.scripts").joinpath(f"{names(row[0])[0]}.lua").read_text(encoding="utf-8")
        touched = set(re.findall(r"K\.([a-z]+)\(", source))
        listed = set(re.findall(r"[a-z]+", row[3]))
        assert touched <= listed, f"{row[0]} also touches {touched - listed}"


def test_every_field_of_a_step_is_explained() -> None:
    fields = {name for row in rows("### Of a run") if len(row) == 2 for name in names(row[0])}
    used = set()
    for source in SOURCES.values():
        for call in re.findall(
            r"redis\.call\('H(?:SET|MGET|GET|DEL|INCRBY)', (?:rec|K\.step\([^)]*\)), ?([^)]*)\)", source
        ):
            used |= set(re.findall(r"'([a-z]{1,3})'", call))
    values = {"q", "h", "l", "p", "r", "d", "a", "s", "x"}
    assert used - values <= fields
    assert fields >= {"s", "g", "w", "t", "tok"}


def test_the_number_of_kept_events_is_the_runners() -> None:
    assert f"the newest {EVENT_LIMIT:,}" in PAGE


def test_invariants_named_in_the_table_exist() -> None:
    known = set(re.findall(r"^(\d+)\. ", PAGE, re.MULTILINE))
    for row in rows("## Scripts"):
        assert set(re.findall(r"\d+", row[5])) <= known
