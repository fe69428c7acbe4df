"""What the root command says and how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from agentq.cli.root import COMMANDS, execute, root


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute([name, "--help"]) == 0
    assert "Example:\n" in capsys.readouterr().out


def test_every_subcommand_has_an_example_and_every_listing_json() -> None:
    context = click.Context(root)
    for name in COMMANDS:
        command = root.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            for below in command.commands.values():
                assert "Example:" in (below.help or ""), (name, below.name)
                if below.name in ("list", "show", "events"):
                    assert any("--json" in param.opts for param in below.params)


def test_wrong_command_is_told_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["rum"]) == 2
    assert 'Did you mean "run"?' in capsys.readouterr().err


def test_init_writes_a_project_and_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["init", str(tmp_path / "shop")]) == 0
    written = (tmp_path / "shop" / "agents.py").read_text()
    compile(written, "agents.py", "exec")
    assert execute(["init", str(tmp_path / "shop")]) == 2
    assert "exists and is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "shop" / "agents.py").read_text() == written


def test_help_does_not_load_celery() -> None:
    code = (
        "import sys; from agentq.cli.root import execute; execute(['--help']);"
        "sys.exit(any(name in sys.modules for name in ('celery', 'rich', 'redis', 'pydantic')))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0
