"""Older releases in a folder of their own, in front of the installed ones: everything else is the lock's."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.kit.installing import install

OLDEST: Final = {"celery": "5.6.3", "kombu": "5.6.2", "redis": "6.4.0"}
"""The oldest that agentq serves on, each with what it asks for: kombu 5.6 knows no later redis-py."""


def fetched() -> Path:
    """Return the folder that holds them, filled at the first call and kept in the virtual environment."""
    folder = Path(sys.prefix) / "older" / "-".join(f"{name}-{release}" for name, release in OLDEST.items())
    if not folder.is_dir():
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            made = Path(scratch) / "made"
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
            if subprocess.call([*pip, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) != 0:
                subprocess.check_call([sys.executable, "-m", "ensurepip"], stdout=subprocess.DEVNULL)
            wanted = [f"{name}=={release}" for name, release in OLDEST.items()]
            install([*pip, "install", "--no-deps", "--no-compile", "--upgrade", "--target", str(made), *wanted])
            with suppress(OSError):  # another process was faster
                made.rename(folder)
    return folder
