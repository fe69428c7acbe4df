"""What the README and the docs name exists, and what exists is named."""

from __future__ import annotations

import ast
import builtins
import importlib
import posixpath
import re
from collections.abc import Iterator

import click
import pytest

import agentq
from agentq import Handle, Run
from agentq.app import Toolkit
from agentq.cli.root import COMMANDS
from agentq.core import errors, models
from agentq.engine.this_step import ThisStep
from agentq.settings import Settings
from tests.kit.process import ROOT
from tests.tour.docs_pages import PAGES, Page

EVERYTHING = "\n".join(page.text for page in PAGES)

NOT_SETTINGS = {"AGENTQ_CONFIG"}
"""Variables of agentq that are no settings: this one says where the settings are."""

OWNERS: dict[str, object] = {"run": Run, "handle": Handle, "this_step": ThisStep, "agentq": agentq}
"""What stands before the point of a name in code type."""

STRANGERS = {
    "AsyncResult", "CUDA_VISIBLE_DEVICES", "CancelledError", "Celery", "Decimal", "Event", "Lock", "Procfile",
    "PYTHONHASHSEED", "Queue",
    "REDIS_URL", "SENTRY_DSN", "SoftTimeLimitExceeded", "TaskGroup",
}  # fmt: skip
"""Names in code type that are neither ours nor built in."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_resolve(page: Page) -> None:
    anchors = {other.name: other.anchors for other in PAGES}
    for link in page.links:
        if re.match(r"[a-z]+://", link):
            continue
        path, _, anchor = link.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page.name), path)) if path else page.name
        assert (ROOT / target).exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors[target], f"{page.name}: {link}: {sorted(anchors[target])}"


def test_every_page_is_linked_from_the_readme() -> None:
    assert {page.name for page in PAGES[1:]} <= set(PAGES[0].links)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_exist(page: Page) -> None:
    known = {f"AGENTQ_{name.upper()}" for name in Settings.model_fields} | NOT_SETTINGS
    assert set(re.findall(r"\bAGENTQ_[A-Z_]+[A-Z]\b", page.text)) <= known


def test_every_setting_has_its_line() -> None:
    named = set(re.findall(r"AGENTQ_[A-Z_]+[A-Z]", PAGES[0].text))
    assert {f"AGENTQ_{name.upper()}" for name in Settings.model_fields} <= named


def test_every_public_name_is_shown() -> None:
    assert [name for name in agentq.__all__ if not re.search(rf"\b{name}\b", EVERYTHING)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_in_code_type_exist(page: Page) -> None:
    for span in page.spans:
        for owner, name in re.findall(r"\b(run|handle|this_step|agentq)\.([a-z_]+)\b", span):
            if (owner, name) == ("agentq", "toml"):
                continue
            known = hasattr(OWNERS[owner], name) or (owner == "agentq" and is_module(f"agentq.{name}"))
            assert known or name in Handle.__init__.__code__.co_names, f"{page.name}: {owner}.{name}"
        for name in re.findall(r"\bapp\.(agents|runs|asks|store|pools|settings)\b", span):
            assert name in (*vars(Toolkit), *Toolkit._equip.__code__.co_names), f"{page.name}: app.{name}"
        if re.fullmatch(r"[A-Z]\w+", span):
            homes = (agentq, errors, models, builtins)
            known = any(hasattr(home, span) for home in homes) or span in STRANGERS or span.startswith("AGENTQ_")
            assert known, f"{page.name}: {span}"


def is_module(name: str) -> bool:
    """Whether there is a module of that name."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Page) -> None:
    for line in commands_in(page):
        words = [word for word in line.split() if not word.startswith("#")]
        command, rest = resolve(words[1:])
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.partition("=")[0] for word in rest if word.startswith("--")} - {"--"}
        if command.name != "run":  # its own options stand among the agent's
            assert used <= options | {"--json"}, f"{page.name}: {line}"


def commands_in(page: Page) -> Iterator[str]:
    """What the page says after ``agentq`` in code type and at prompts."""
    for span in page.spans:
        if re.match(r"agentq( -A \S+)? [a-z]", span):
            yield re.sub(r" -A \S+", "", span)
    for block in page.blocks:
        for line in re.findall(r"^\$ (agentq .*)$", block.text, re.MULTILINE):
            yield re.sub(r" -A \S+", "", line)


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words call, and the words behind its name."""
    entry = COMMANDS[words[0]]
    command = getattr(importlib.import_module(entry.module), entry.attribute)
    assert isinstance(command, click.Command)
    rest = words[1:]
    if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def test_every_command_is_at_a_glance() -> None:
    assert [name for name in COMMANDS if f"agentq {name}" not in PAGES[0].text] == []


def test_messages_in_troubleshooting_are_the_softwares_own() -> None:
    said = list(texts_in_source())
    page = next(page for page in PAGES if page.name == "docs/troubleshooting.md")
    messages = [block for block in page.blocks if block.kind == "text"]
    assert messages
    for block in messages:
        for part in re.split(r"…|: ", " ".join(block.text.split())):
            fragment = part.strip(' ".:;()')
            if len(fragment) >= 12:
                assert any(fragment in text for text in said), f"{block.page}:{block.line}: {fragment!r}"


def texts_in_source() -> Iterator[str]:
    """Every text in agentq's source, with … for what is put in when it runs."""
    for path in (ROOT / "agentq").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value.replace("%s", "…").replace("%r", "…")
            elif isinstance(node, ast.JoinedStr):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
