"""Runs Celery's integration tests (``t/integration`` of the installed version's source) against agentq.

The source is fetched from the package index once and kept in the virtual environment; nothing of it is committed.
A private server is started for it, and all apps that the suite makes are given agentq by ``plugin.py``.

``python -m tests.celery_suite [--quick] [--stock] [PYTEST ARGUMENTS]``; ``--stock`` leaves agentq out, to see
whether a failure is the suite's own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from tests.celery_suite.selection import QUICK
from tests.kit.process import ROOT, clean_environment
from tests.kit.server import PrivateServer

TESTS_FAILED = 1
"""pytest's exit status."""

FIRST = "t/integration/test_tasks.py::test_tasks::test_timeout"
"""Starts the worker on which others rely that do not ask for one."""

AGAIN = 12
"""So many failed tests are tried once more: some give a worker a second to answer, which a busy machine does not."""


def main(arguments: list[str]) -> int:
    """Run the suite, or a part of it, and return pytest's exit status."""
    stock = "--stock" in arguments
    quick = "--quick" in arguments
    rest = [argument for argument in arguments if argument not in ("--stock", "--quick")]
    if quick:
        rest = [*QUICK, *rest]
    elif not any(argument.startswith("t/") for argument in rest):
        rest = ["t/integration", *rest]
    folder = unpacked()
    server = PrivateServer(tcp=True)
    server.start()
    try:
        plugins = ["-p", "celery.contrib.pytest", "-p", "tests.celery_suite.plugin"]
        environment = _environment(server, stock=stock, folder=folder)
        failed = server.folder / "failed"
        environment["CELERY_SUITE_FAILED"] = str(failed)
        command = [sys.executable, "-m", "pytest", *plugins, "-p", "no:cacheprovider", "--timeout=600"]
        status = subprocess.call([*command, *rest], cwd=folder, env=environment)
        again = failed.read_text().split("\n") if status == TESTS_FAILED and failed.exists() else []
        if 0 < len(again) <= AGAIN:
            sys.stderr.write(f"{len(again)} failed; again, by themselves:\n" + "\n".join(again) + "\n")
            status = subprocess.call([*command, "-v", FIRST, *again], cwd=folder, env=environment)
        return status
    finally:
        server.stop()


def _environment(server: PrivateServer, *, stock: bool, folder: Path) -> dict[str, str]:
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    own = {name: value for name, value in os.environ.items() if name == "AGENTQ_TRANSPORT"}
    return clean_environment(
        {
            **own,
            "PATH": programs,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
            "TEST_BROKER": server.url,
            "TEST_BACKEND": server.url,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(server.port),
            # One of its tests reads what the worker logs at this level.
            "WORKER_LOGLEVEL": "info",
            "C_FORCE_ROOT": "1",
            # Its workers are threads of pytest's own process, with which they end when they are given up.
            "AGENTQ_LEASE": "60s",
            **({"AGENTQ_TEST_STOCK": "1"} if stock else {}),
        }
    )


def unpacked() -> Path:
    """Return the folder with the installed Celery version's tests, fetched at the first call."""
    release = version("celery")
    folder = Path(sys.prefix) / "celery-suite" / release
    if not (folder / "t").is_dir():
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            _fetch(release, into=Path(scratch))
            made = Path(scratch) / f"celery-{release}"
            keep = Path(scratch) / "kept"
            keep.mkdir()
            # The tests alone: Celery itself is the installed one.
            for name in ("t", "pyproject.toml"):
                shutil.move(made / name, keep / name)
            with suppress(OSError):  # another process was faster
                keep.rename(folder)
    return folder


def _fetch(release: str, *, into: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    if subprocess.call([*pip, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) != 0:
        subprocess.check_call([sys.executable, "-m", "ensurepip"], stdout=subprocess.DEVNULL)
    wanted = ["download", "--no-deps", "--no-binary", "celery", f"celery=={release}"]
    subprocess.check_call([*pip, *wanted, "--dest", str(into)])
    with tarfile.open(into / f"celery-{release}.tar.gz") as archive:
        # Python 3.11.2, Debian's, has no filters yet, and no argument for one.
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _path: member)
        archive.extractall(into)  # noqa: S202 -- it has one where there are any


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
