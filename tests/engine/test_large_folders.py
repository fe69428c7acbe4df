"""A folder of 1,000 files and 50 MB is searched in the memory that one of 5 MB takes."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.projects import load_module
from tests.kit.server import PrivateServer
from tests.kit.worker import WorkerProcess
from workers.agents.retrieval.models import Report
from workers.agents.retrieval.verifying import verify

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process from /proc"),
]

QUESTION = "How should agent state be kept so that a crashed agent can resume?"
FILE_BYTES = 50_000
SENTENCES = 4000
StartWorker = Callable[..., WorkerProcess]


@pytest.fixture(scope="module")
def app(module_server: PrivateServer) -> Iterator[Any]:
    loaded = load_module("workers.app", url=module_server.celery_url)
    yield loaded.app
    loaded.app.close()


def write_folder(folder: Path, files: int) -> Path:
    """Files of prose in which each word is about as frequent as in English, a few of them in point."""
    chance = random.Random(5)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    vocabulary = ["".join(chance.choices(letters, range(26, 0, -1), k=chance.randint(3, 9))) for _ in range(20_000)]
    weights = [1 / rank for rank in range(1, len(vocabulary) + 1)]
    in_point = ("The state of an agent is kept in a log.", "A crashed agent resumes from its last checkpoint.")
    sentences = [" ".join(chance.choices(vocabulary, weights, k=chance.randint(8, 24))) + "." for _ in range(SENTENCES)]
    for number in range(files):
        lines: list[str] = []
        while sum(map(len, lines)) < FILE_BYTES:
            lines.append(" ".join(one.capitalize() for one in chance.choices(sentences, k=5)))
        lines.insert(chance.randrange(len(lines)), f"{in_point[number % 2]} So says page {number}.")
        place = folder / f"{number // 100:02}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:04}.md").write_text("\n\n".join(lines))
    return folder


def peak_mb(pid: int) -> float:
    """The most memory that the process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def search(app: Any, server: PrivateServer, start: StartWorker, folder: Path) -> tuple[Report, dict[str, float]]:
    server.flush()
    worker = start("workers.app", url=server.celery_url, queues=("managers", "tools", "model"))
    report: Report = app.agents["research"].start(QUESTION, str(folder)).get(timeout=600)
    peaks = {"main": peak_mb(worker.pid), "child": max(map(peak_mb, worker.children()))}
    peaks["server"] = peak_mb(int(server.client.info("server")["process_id"]))
    worker.terminate()
    return report, peaks


def test_memory_does_not_grow_with_the_folder(
    app: Any, module_server: PrivateServer, start_worker: StartWorker, tmp_path: Path
) -> None:
    small, small_peaks = search(app, module_server, start_worker, write_folder(tmp_path / "small", 100))
    large, large_peaks = search(app, module_server, start_worker, write_folder(tmp_path / "large", 1000))
    assert (small.searched.files, large.searched.files) == (100, 1000)
    assert len(large.quotations) >= 2
    assert verify(large, str(tmp_path / "large")) == []
    grown = {name: round(large_peaks[name] / small_peaks[name], 2) for name in small_peaks}
    assert all(times <= 1.3 for times in grown.values()), (grown, small_peaks, large_peaks)
