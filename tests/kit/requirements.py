"""Says what a test needs of the machine: in CI its absence fails, at home it skips with the reason."""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest


def in_ci() -> bool:
    """Return whether absences must fail (``CI=true``)."""
    return os.environ.get("CI", "").lower() in {"1", "true", "yes"}


def require(what: str, *, present: bool, hint: str = "") -> None:
    """Let the test go on if ``what`` is there; else fail in CI, skip elsewhere, naming it."""
    if present:
        return
    reason = f"this test needs {what}, which is not on this machine" + (f": {hint}" if hint else "")
    if in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def require_program(name: str, *, hint: str = "") -> str:
    """Return the path of a program, or fail or skip as ``require`` does."""
    path = shutil.which(name)
    require(f"the program {name!r}", present=path is not None, hint=hint)
    assert path is not None
    return path


def require_module(name: str, *, hint: str = "") -> None:
    """Let the test go on if a module can be imported, or fail or skip as ``require`` does."""
    require(f"the Python module {name!r}", present=importlib.util.find_spec(name) is not None, hint=hint)
