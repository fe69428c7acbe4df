"""`agentq init`: a working project of a few lines."""

from __future__ import annotations

from pathlib import Path

import click

from agentq.cli.commands import ExampleCommand
from agentq.cli.errors import CommandRefused

AGENTS_PY = '''\
"""An agent and the step that it calls. Run it: agentq run hello --names Ada --names Grace"""

from agentq import AgentQ, Run

app = AgentQ("agents")


@app.step
def greet(name: str) -> str:
    return f"Hello, {name}!"


@app.agent
async def hello(run: Run, names: list[str]) -> list[str]:
    return await run.map(greet, names)
'''

AGENTQ_TOML = """\
# What the command "agentq" loads in this folder, and the settings that differ from the defaults.
# Environment variables (AGENTQ_*) come before this file; "agentq doctor" shows what is in force.
app = "agents:app"

# redis_url = "redis://localhost:6379/0"   # without it agentq runs a private server in .agentq/
"""

FILES = {"agents.py": AGENTS_PY, "agentq.toml": AGENTQ_TOML}
GITIGNORE = ".agentq/\n__pycache__/\n"


@click.command(cls=ExampleCommand)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path("."))
def init(folder: Path) -> int:
    """Write a working project of a few lines into FOLDER (the current one).

    Files that exist are never overwritten.

    Example:
      agentq init shop && cd shop
      agentq run hello --names Ada --names Grace
    """
    standing = [name for name in FILES if (folder / name).exists()]
    if standing:
        raise CommandRefused(
            f"{folder / standing[0]} exists and is not overwritten. Take an empty folder: agentq init NAME."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        _write_new(folder / name, text)
    if not (folder / ".gitignore").exists():
        _write_new(folder / ".gitignore", GITIGNORE)
    click.echo(f"Wrote {' and '.join(str(folder / name) for name in FILES)}.")
    step_in = "" if folder == Path(".") else f"cd {folder} && "
    click.echo(f"Try it:  {step_in}agentq run hello --names Ada --names Grace")
    return 0


def _write_new(path: Path, text: str) -> None:
    # "x": two commands at once must not overwrite each other's files either.
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
