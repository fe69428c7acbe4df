"""Runs the pages' blocks and commands: a program, given its jobs as JSON on stdin, that answers with JSON on stdout.

Each job has a process of its own, forked when the app and its modules are loaded, and all of them run at once: most of
their time they wait for a worker. A traceback names the page and the line in it.
"""

from __future__ import annotations

import importlib
import json
import linecache
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO, Any

TIMEOUT = 90
"""Seconds for one job, while the others run too."""


def main() -> None:
    """All jobs have run; the answer has an exit code and what was said for each."""
    given = json.load(sys.stdin)
    # Steps that belong to no app are called through the current one: the project's, as in its worker.
    for name in [given["app"], *given["modules"], "agentq.cli.root", "agentq.testing", "agentq.canvas"]:
        importlib.import_module(name)
    importlib.import_module(given["app"]).app.set_current()
    started = [_start(job) for job in given["jobs"]]
    answers = []
    for pid, said in started:
        _, status = os.waitpid(pid, 0)
        said.seek(0)
        answers.append({"code": os.waitstatus_to_exitcode(status), "said": said.read().decode(errors="replace")})
    json.dump(answers, sys.stdout)


def _start(job: dict[str, Any]) -> tuple[int, IO[bytes]]:
    said = tempfile.TemporaryFile()  # noqa: SIM115  # read when the job has ended
    pid = os.fork()
    if pid:
        return pid, said
    code = 1
    try:
        signal.alarm(TIMEOUT)
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
        code = _run_command(job["argv"]) if "argv" in job else _run_page(job)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # What the parent has open is not this process's to close.
        os._exit(code)


def _run_page(job: dict[str, Any]) -> int:
    namespace: dict[str, object] = {"__name__": "__page__"}
    page = job["page"]
    linecache.cache[page] = (0, None, Path(job["path"]).read_text(encoding="utf-8").splitlines(keepends=True), page)
    for line, text in job["blocks"]:
        exec(compile("\n" * (line - 1) + text, page, "exec"), namespace)  # noqa: S102  # our own pages
    return 0


def _run_command(argv: list[str]) -> int:
    return int(importlib.import_module("agentq.cli.root").execute(argv))


if __name__ == "__main__":
    main()
