"""The README's and the docs' code blocks do what they show; the rules are in ``docs_pages``."""

from __future__ import annotations

import difflib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kit.leaks import check_leaks
from tests.kit.process import ROOT, clean_environment
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess
from tests.tour.docs_pages import PAGES, Block, Page

TIMEOUT = 120
"""Seconds for all pages and commands, which run at once."""
ALIKE = 0.6
"""How much of a shown line must come back: numbers, ids and widths differ from machine to machine."""

PROJECT_APP = "pages_app"
SERVED = '''\
"""The app of the README's first example, which also has all other steps and agents of the pages."""

from agents import app

app.conf.include = {modules!r}
'''
OWN_APPS = ("existing", "web")
"""Modules of the pages that are no part of the project's app: one has an app of its own, one is a web server's."""


@dataclass(frozen=True)
class Command:
    """One command of a console block, and what it is shown to say."""

    block: Block
    argv: list[str]
    shown: list[str]

    @property
    def name(self) -> str:
        """Where it stands, and its first words."""
        return f"{self.block.page}:{self.block.line} {' '.join(self.argv[:4])}"


def _commands() -> Iterator[Command]:
    for block in (block for page in PAGES for block in page.blocks if block.kind == "console"):
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, *shown = part.splitlines()
            words = shlex.split(command)
            assert words[0] == "agentq", f"{block.page}:{block.line}: only agentq's commands are run: {command}"
            yield Command(block, words[1:], shown)


COMMANDS = list(_commands())


@dataclass(frozen=True)
class Answer:
    """How a job ended, and what it said on both streams."""

    code: int
    said: str


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory,
    module_server: PrivateServer,
    start_module_worker: Callable[..., WorkerProcess],
) -> Iterator[dict[str, Answer]]:
    """What all pages and commands did, in a project of the pages' files with a worker that serves it."""
    folder = tmp_path_factory.mktemp("project")
    modules = write_files(folder)
    extra = {
        "AGENTQ_REDIS_URL": module_server.celery_url,
        "AGENTQ_APP": f"{PROJECT_APP}:app",
        "PYTHONPATH": f"{folder}:{ROOT}",
        "PYTHONHASHSEED": "0",
        "C_FORCE_ROOT": "1",
        "COLUMNS": "110",
    }
    start_module_worker(PROJECT_APP, url=module_server.celery_url, concurrency=6, cwd=folder, env=extra)
    jobs = {page.name: job_of(page) for page in PAGES} | {each.name: {"argv": each.argv} for each in COMMANDS}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("docs_session.py"))],
        cwd=folder,
        env=clean_environment(extra),
        input=json.dumps({"app": PROJECT_APP, "modules": modules, "jobs": list(jobs.values())}),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    yield {name: Answer(**answer) for name, answer in zip(jobs, json.loads(done.stdout), strict=True)}
    check_leaks(module_server.client)


def write_files(folder: Path) -> list[str]:
    """Write the pages' files, and the app that serves them; return the names of all modules."""
    modules = []
    for block in (block for page in PAGES for block in page.blocks if block.file is not None):
        assert block.file is not None
        path = folder / block.file
        assert not path.exists(), f"{block.page}:{block.line}: {block.file} stands in another page too"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
        if path.suffix == ".py":
            modules.append(block.file.removesuffix(".py").replace("/", "."))
    served = [name for name in modules if name not in ("agents", *OWN_APPS)]
    (folder / f"{PROJECT_APP}.py").write_text(SERVED.format(modules=served), encoding="utf-8")
    return modules


def job_of(page: Page) -> dict[str, Any]:
    """What the session has to run of a page."""
    blocks = [block for block in page.blocks if block.kind == "python" and block.file is None]
    path = str(ROOT / page.name)
    return {"page": page.name, "path": path, "blocks": [(block.line, block.text) for block in blocks]}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Page, answers: dict[str, Answer]) -> None:
    assert answers[page.name].code == 0, answers[page.name].said


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_commands_say_what_they_are_shown_to_say(command: Command, answers: dict[str, Answer]) -> None:
    answer = answers[command.name]
    refused = any(line.startswith("agentq: ") for line in command.shown)
    assert (answer.code != 0) == refused, answer.said
    said = [comparable(line) for line in answer.said.splitlines()]
    for line in filter(None, map(comparable, command.shown)):
        assert difflib.get_close_matches(line, said, n=1, cutoff=ALIKE), f"{line!r} is not in:\n{answer.said}"


def comparable(line: str) -> str:
    """The line without what differs from run to run; empty if nothing of it stays."""
    if re.match(r"\s*[\d.]+ m?s  ", line):
        return ""  # progress: what a look once in a quarter of a second happened to see
    line = re.sub(r"[─░█]+", "", line)
    line = re.sub(r"\b[0-9a-f]{8}(-[0-9a-f-]{27})?\b", "ID", line)
    line = re.sub(r"\b\w+-[0-9a-f]{6}\b(@\S+)?|\bw[0-9a-f]{8}\b(@\S+)?", "WORKER", line)
    line = re.sub(r"\d+(\.\d+)?", "0", line)
    return re.sub(r"\s+", " ", line).strip(" …")


def test_fragments_compile() -> None:
    for block in (block for page in PAGES for block in page.blocks if block.kind == "py"):
        compile(block.text, f"{block.page}:{block.line}", "exec")
