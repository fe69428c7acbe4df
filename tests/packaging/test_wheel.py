"""The built package: what it holds, and that it works alone in an empty environment and an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.kit.installing import install
from tests.kit.process import clean_environment
from tests.kit.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built from what version control would hand out: no leftovers of this checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("agentq", "workers", "config"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", target], cwd=source, check=True)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment that holds the wheel, what it asks for, and nothing else."""
    venv = tmp_path_factory.mktemp("environment") / "venv"
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    python = venv / "bin" / "python"
    if uv is not None:
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, venv], check=True)
        install([uv, "pip", "install", "--quiet", "--python", python, wheel])
    else:
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        install([python, "-m", "pip", "install", "--quiet", wheel])
    return venv / "bin"


def test_holds_the_library_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    inside = {name for name in names if name.startswith("agentq/")}
    outside = names - inside
    assert {name.split("/")[0].rpartition(".")[2] for name in outside} == {"dist-info"}
    written = {path.relative_to(ROOT).as_posix() for path in (ROOT / "agentq").rglob("*") if path.is_file()}
    assert inside == {name for name in written if "__pycache__" not in name}
    assert "agentq/py.typed" in inside
    assert any(name.endswith(".lua") for name in inside)


def test_says_who_it_is(wheel: Path) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert wheel.name.startswith(f"agentq_celery-{declared['version']}-py3-none-any")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        words = archive.read(metadata).decode()
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert "\nName: agentq-celery\n" in words
    assert "\nLicense-Expression: Apache-2.0\n" in words


def test_a_project_of_a_few_lines_runs_from_it(installed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    environment = {**clean_environment(), "PATH": f"{installed}{os.pathsep}/usr/bin{os.pathsep}/bin"}
    del environment["PYTHONPATH"]

    def agentq(*words: str) -> str:
        done = subprocess.run(
            [installed / "agentq", *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    agentq("init")
    agents = folder / "agents.py"
    before = agents.read_text()
    after = before.replace("Hello, ", "Welcome, ")
    assert after != before
    agents.write_text(after)
    told = json.loads(agentq("run", "hello", "--names", "Ada", "--names", "Grace", "--json"))
    assert told["status"] == "succeeded"
    assert told["result"] == ["Welcome, Ada!", "Welcome, Grace!"]
    assert folder.joinpath(".agentq").is_dir()
    server = int((folder / ".agentq" / "server" / "server.pid").read_text())
    wait_until(lambda: not _lives(server), description="the private server ended with the command")


def _lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
