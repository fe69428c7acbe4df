"""Runs a page's blocks one after the other in one namespace: a program, given the blocks as JSON on its stdin.

A traceback names the page and the line in it.
"""

from __future__ import annotations

import importlib
import json
import linecache
import sys
from pathlib import Path


def main() -> None:
    """Every block has run; the first exception ends the program."""
    job = json.load(sys.stdin)
    # Steps that belong to no app are called through the current one: the project's, as in its worker.
    importlib.import_module(job["app"])
    for name in job["modules"]:
        importlib.import_module(name)
    namespace: dict[str, object] = {"__name__": "__page__"}
    page = job["page"]
    linecache.cache[page] = (0, None, Path(job["path"]).read_text(encoding="utf-8").splitlines(keepends=True), page)
    for line, text in job["blocks"]:
        exec(compile("\n" * (line - 1) + text, page, "exec"), namespace)  # noqa: S102  # our own pages


if __name__ == "__main__":
    main()
