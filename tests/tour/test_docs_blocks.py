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

import pytest

from tests.kit.leaks import check_leaks
from tests.kit.process import ROOT, clean_environment
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess
from tests.tour.docs_pages import PAGES, Block, Page

TIMEOUT = 60
"""Seconds for one page, or one command."""
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
class Project:
    """The folder that holds all files of the pages, and how its processes are started."""

    folder: Path
    env: dict[str, str]
    modules: list[str]

    def python(self, argv: list[str], *, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run Python in the folder and return what it said, stderr with stdout."""
        return subprocess.run(
            [sys.executable, *argv],
            cwd=self.folder,
            env=self.env,
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory,
    module_server: PrivateServer,
    start_module_worker: Callable[..., WorkerProcess],
) -> Iterator[Project]:
    """The pages' files in a folder, and a worker that serves their steps and agents."""
    folder = tmp_path_factory.mktemp("project")
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
    extra = {
        "AGENTQ_REDIS_URL": module_server.celery_url,
        "AGENTQ_APP": f"{PROJECT_APP}:app",
        "PYTHONPATH": f"{folder}:{ROOT}",
        "PYTHONHASHSEED": "0",
        "C_FORCE_ROOT": "1",
        "COLUMNS": "110",
    }
    start_module_worker(PROJECT_APP, url=module_server.celery_url, concurrency=4, cwd=folder, env=extra)
    yield Project(folder, clean_environment(extra), modules)
    check_leaks(module_server.client)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Page, project: Project) -> None:
    blocks = [block for block in page.blocks if block.kind == "python"]
    modules = [block.file.removesuffix(".py").replace("/", ".") for block in blocks if block.file is not None]
    job = {
        "app": PROJECT_APP,
        "modules": modules,
        "page": page.name,
        "path": str(ROOT / page.name),
        "blocks": [(block.line, block.text) for block in blocks if block.file is None],
    }
    done = project.python([str(Path(__file__).with_name("docs_session.py"))], given=json.dumps(job))
    assert done.returncode == 0, done.stdout


def consoles() -> list[Block]:
    """The console blocks of all pages."""
    return [block for page in PAGES for block in page.blocks if block.kind == "console"]


@pytest.mark.parametrize("block", consoles(), ids=lambda block: f"{block.page}:{block.line}")
def test_console_blocks_say_what_they_show(block: Block, project: Project) -> None:
    for command, shown in commands_of(block):
        words = shlex.split(command)
        assert words[0] == "agentq", f"only agentq's commands are run, not {command!r}"
        done = project.python(["-m", "agentq.cli", *words[1:]])
        refused = any(line.startswith("agentq: ") for line in shown)
        assert (done.returncode != 0) == refused, done.stdout
        said = [comparable(line) for line in done.stdout.splitlines()]
        for line in filter(None, map(comparable, shown)):
            assert difflib.get_close_matches(line, said, n=1, cutoff=ALIKE), f"{line!r} is not in:\n{done.stdout}"


def commands_of(block: Block) -> Iterator[tuple[str, list[str]]]:
    """The block's commands, each with the lines that it is shown to say."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, *shown = part.splitlines()
        yield command, shown


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
