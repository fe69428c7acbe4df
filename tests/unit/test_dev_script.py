"""The script ``./dev`` with stand-ins for uv and agentq: what it sets up, when, and what it says if it cannot."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FAKE_UV = """#!/bin/sh
echo "$*" >>"{log}"
case $1 in
    venv)
        for last; do :; done
        mkdir -p "$last/bin"
        ln -s "{python}" "$last/bin/python"
        printf '#!/bin/sh\\necho "in $(pwd -P)"\\nfor word; do echo "[$word]"; done\\n' >"$last/bin/agentq"
        chmod +x "$last/bin/agentq"
        ;;
    pip) sleep {seconds} ;;
esac
exit {code}
"""


class Checkout:
    """A copy of what ``./dev`` reads, in a folder with a space in its name, and a path of its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "my project"
        self.root.mkdir()
        for name in ("dev", "pyproject.toml", "requirements.lock"):
            shutil.copy(ROOT / name, self.root)
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.log = folder / "uv.log"
        self.log.touch()
        for name in ("sh", "cat", "cksum", "date", "mv", "rm", "mkdir", "ln", "chmod", "sleep"):
            found = shutil.which(name)
            assert found is not None
            (self.programs / name).symlink_to(found)
        self.add("python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')

    def strip_python(self) -> None:
        """Take the parts away that Debian keeps in a package of its own, so that only uv makes environments."""
        stripped = f'#!/bin/sh\ncase $2 in *ensurepip*) exit 1 ;; esac\nexec "{sys.executable}" "$@"\n'
        self.add("python3", stripped)

    def add(self, name: str, text: str) -> None:
        program = self.programs / name
        program.unlink(missing_ok=True)
        program.write_text(text)
        program.chmod(0o755)

    def add_uv(self, *, seconds: float = 0, code: int = 0) -> None:
        # The interpreter itself, not the test's own environment: a link into .venv would lose its packages' home.
        self.add("uv", FAKE_UV.format(log=self.log, python=sys.executable, seconds=seconds, code=code))

    def run(self, *words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self.root / "dev"), *words],
            cwd=cwd if cwd is not None else self.root,
            env={"PATH": str(self.programs), "HOME": str(self.root), **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        """Return what uv was asked for since the last look: the first word of each call."""
        words = [line.split()[0] for line in self.log.read_text().splitlines()]
        self.log.write_text("")
        return words


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_says_its_commands(checkout: Checkout) -> None:
    shown = checkout.run()
    assert shown.returncode == 0
    for command in ("demo", "up", "test", "check", "setup", "lock"):
        assert re.search(rf"^  {command}\b", shown.stdout, re.MULTILINE)


def test_refuses_a_command_that_it_does_not_know(checkout: Checkout) -> None:
    refused = checkout.run("dmeo")
    assert refused.returncode == 1
    assert 'there is no command "dmeo"' in refused.stderr


def test_the_second_start_sets_nothing_up_and_is_quick(checkout: Checkout) -> None:
    checkout.add_uv()
    first = checkout.run("setup")
    assert first.returncode == 0, first.stderr
    assert "Setting up .venv" in first.stderr
    assert checkout.calls() == ["venv", "pip", "pip"]
    took = []
    for _ in range(3):
        started = time.monotonic()
        again = checkout.run("setup")
        took.append(time.monotonic() - started)
        assert (again.returncode, again.stderr, checkout.calls()) == (0, "", [])
    # Other processes may make one of them wait.
    assert min(took) < 1, took


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock", "dev"])
def test_a_change_of_what_it_was_made_from_sets_up_again(name: str, checkout: Checkout) -> None:
    checkout.add_uv()
    checkout.run("setup")
    checkout.calls()
    with (checkout.root / name).open("a") as file:
        file.write("# changed\n")
    assert checkout.run("setup").returncode == 0
    assert checkout.calls() == ["pip", "pip"], "the packages again, in the same environment"


def test_a_moved_project_is_set_up_again(checkout: Checkout) -> None:
    checkout.add_uv()
    checkout.run("setup")
    checkout.calls()
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    assert checkout.run("setup").returncode == 0
    assert checkout.calls() == ["pip", "pip"]


def test_an_environment_whose_python_is_gone_is_made_anew(checkout: Checkout) -> None:
    checkout.add_uv()
    checkout.run("setup")
    checkout.calls()
    python = checkout.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python")
    assert checkout.run("setup").returncode == 0
    assert checkout.calls() == ["venv", "pip", "pip"]


def test_two_first_starts_at_once_set_up_once(checkout: Checkout) -> None:
    checkout.add_uv(seconds=0.5)
    with ThreadPoolExecutor(2) as both:
        done = list(both.map(lambda _: checkout.run("setup"), range(2)))
    assert [each.returncode for each in done] == [0, 0], [each.stderr for each in done]
    assert checkout.calls() == ["venv", "pip", "pip"]


def test_a_set_up_that_failed_is_tried_again(checkout: Checkout) -> None:
    checkout.strip_python()
    checkout.add_uv(code=1)
    assert checkout.run("setup").returncode == 1
    checkout.calls()
    checkout.add_uv()
    again = checkout.run("setup")
    assert again.returncode == 0, again.stderr


def test_uv_may_never_fetch_a_python(checkout: Checkout) -> None:
    checkout.strip_python()
    checkout.add("uv", '#!/bin/sh\necho "downloads: $UV_PYTHON_DOWNLOADS" >&2\nexit 1\n')
    assert "downloads: never" in checkout.run("setup").stderr


def test_one_index_for_pip_and_uv(checkout: Checkout) -> None:
    checkout.add_uv()
    script = checkout.programs / "uv"
    script.write_text(script.read_text().replace("sleep 0", 'echo "index: $UV_DEFAULT_INDEX" >&2'))
    shown = checkout.run("setup", PIP_INDEX_URL="https://mirror.example/simple")
    assert "index: https://mirror.example/simple" in shown.stderr


def test_shims_and_old_pythons_are_passed_over(checkout: Checkout) -> None:
    checkout.add_uv()
    checkout.add("python3.13", '#!/bin/sh\necho "python3.13: command not found" >&2\nexit 127\n')
    checkout.add("python3.12", "#!/bin/sh\nexit 1\n")
    assert checkout.run("setup").returncode == 0


def test_no_python_is_said_with_the_way_out(checkout: Checkout) -> None:
    checkout.add("python3", "#!/bin/sh\nexit 1\n")
    refused = checkout.run("setup")
    assert refused.returncode == 1
    assert "no Python of version 3.11 or later" in refused.stderr
    assert "apt install" in refused.stderr


def test_a_python_named_wrongly_is_said(checkout: Checkout) -> None:
    refused = checkout.run("setup", PYTHON="/nowhere/python")
    assert refused.returncode == 1
    assert "PYTHON=/nowhere/python is not a Python" in refused.stderr


def test_a_python_without_venv_is_said_with_the_package_to_install(checkout: Checkout) -> None:
    checkout.strip_python()
    refused = checkout.run("setup")
    assert refused.returncode == 1
    assert f"python{sys.version_info.major}.{sys.version_info.minor}-venv" in refused.stderr


def test_the_demo_asks_about_a_folder_as_seen_from_where_it_is_called(checkout: Checkout, tmp_path: Path) -> None:
    checkout.add_uv()
    shown = checkout.run("demo", "What, then?", "some texts", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines() == [
        f"in {checkout.root}",
        "[run]",
        "[research]",
        "[--question]",
        "[What, then?]",
        "[--folder]",
        f"[{tmp_path}/some texts]",
    ]


def test_the_demo_has_a_question_and_a_folder_of_its_own(checkout: Checkout) -> None:
    checkout.add_uv()
    lines = checkout.run("demo").stdout.splitlines()
    assert lines[-1] == f"[{checkout.root}/docs]"
    assert lines[4].endswith("?]")


def test_it_can_be_called_by_a_relative_name_and_by_the_path(checkout: Checkout) -> None:
    checkout.add_uv()
    checkout.run("setup")
    env = {"PATH": f"{checkout.root}{os.pathsep}{checkout.programs}", "CDPATH": str(checkout.programs)}
    for words, cwd in ((["./dev"], checkout.root), (["../dev"], checkout.root / ".venv"), (["dev"], Path("/"))):
        shown = subprocess.run(
            [shutil.which("sh") or "sh", "-c", 'exec "$0" up --port 1', *words],
            cwd=cwd,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown.stdout.splitlines() == [f"in {checkout.root}", "[up]", "[--port]", "[1]"], shown.stderr


def test_the_locks_name_no_address() -> None:
    for name in ("requirements.lock", "docker/requirements.lock"):
        assert re.findall(r"[a-z+]+://\S+", (ROOT / name).read_text()) == []


def test_the_image_gets_the_versions_that_are_tested() -> None:
    def versions(name: str) -> dict[str, str]:
        text = (ROOT / name).read_text()
        return dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", text, re.MULTILINE))

    tested, shipped = versions("requirements.lock"), versions("docker/requirements.lock")
    assert {"celery", "kombu", "redis", "pypdf"} <= shipped.keys()
    assert "pytest" not in shipped
    assert shipped.items() <= tested.items()
