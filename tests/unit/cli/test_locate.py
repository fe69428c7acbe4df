"""Which application a command talks to, and the words when it is not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agentq.cli.errors import CommandRefused
from agentq.cli.locate import DEFAULT_APP, AppSource, decide_app, load_app

APP = """
class App:
    def server_words(self):
        return ""

app = App()
other = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_order_of_places(folder: Path) -> None:
    assert decide_app(None, environ={}, cwd=folder).spec == DEFAULT_APP
    (folder / "pyproject.toml").write_text('[tool.agentq]\napp = "from_pyproject:app"\n')
    assert decide_app(None, environ={}, cwd=folder).spec == "from_pyproject:app"
    (folder / "agentq.toml").write_text('app = "from_file:app"\n')
    source = decide_app(None, environ={}, cwd=folder)
    assert (source.spec, source.config) == ("from_file:app", folder / "agentq.toml")
    assert decide_app(None, environ={"AGENTQ_APP": "from_env:app"}, cwd=folder).spec == "from_env:app"
    assert decide_app("given:app", environ={"AGENTQ_APP": "from_env:app"}, cwd=folder).spec == "given:app"


def test_parents_count_only_inside_a_repository(folder: Path) -> None:
    (folder / "agentq.toml").write_text('app = "above:app"\n')
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    assert decide_app(None, environ={}, cwd=below).spec == DEFAULT_APP
    (folder / ".git").mkdir()
    source = decide_app(None, environ={}, cwd=below)
    assert (source.spec, source.root) == ("above:app", folder)
    (folder / "a" / ".git").mkdir()
    assert decide_app(None, environ={}, cwd=below).spec == DEFAULT_APP


def test_a_subfolder_shares_the_project_s_state(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = AppSource("above:app", "agentq.toml", folder.parent, folder.parent / "agentq.toml")
    environ = {"AGENTQ_CONFIG": "mine.toml"}
    source.settle_environment(environ, cwd=folder)
    assert environ == {"AGENTQ_CONFIG": "mine.toml", "AGENTQ_STATE_DIR": str(folder.parent / ".agentq")}


@pytest.mark.parametrize(
    ("text", "words"),
    [("app = 3\n", "app is 3"), ("app = \n", "cannot be read")],
)
def test_bad_files_are_named(folder: Path, text: str, words: str) -> None:
    (folder / "agentq.toml").write_text(text)
    with pytest.raises(CommandRefused, match=words) as refusal:
        decide_app(None, environ={}, cwd=folder)
    assert "agentq.toml" in str(refusal.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("nothing_here:app", 'no module "nothing_here"'),
        ("shown_app:nothing", "Applications in it: app"),
        ("shown_app:other", "is int, not an agentq application"),
        ("broken_app:app", r"ZeroDivisionError: division by zero \(.*broken_app.py, line 2\)"),
        ("missing_app:app", "No module named 'no_such_library'"),
    ],
)
def test_what_cannot_be_loaded_is_told(folder: Path, spec: str, words: str) -> None:
    (folder / "shown_app.py").write_text(APP)
    (folder / "broken_app.py").write_text("\n1 / 0\n")
    (folder / "missing_app.py").write_text("import no_such_library\n")
    with pytest.raises(CommandRefused, match=words):
        load_app(AppSource(spec, "-A", folder))
    sys.modules.pop("shown_app", None)


def test_loads_from_the_working_directory(folder: Path) -> None:
    (folder / "found_app.py").write_text(APP)
    assert type(load_app(AppSource("found_app", "-A", folder))).__name__ == "App"
    sys.modules.pop("found_app")


def test_a_state_folder_that_the_file_names_stays(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / "agentq.toml").write_text('app = "above:app"\nstate_dir = "/elsewhere"\n')
    below = folder / "below"
    below.mkdir()
    source = decide_app(None, environ={}, cwd=below)
    environ: dict[str, str] = {}
    source.settle_environment(environ, cwd=below)
    assert environ == {"AGENTQ_CONFIG": str(folder / "agentq.toml")}
    source.settle_environment(environ := {}, cwd=folder)
    assert environ == {}


def test_settings_in_the_config_folder_name_the_application_too(folder: Path) -> None:
    (folder / "config").mkdir()
    (folder / "config" / "agentq.toml").write_text('app = "there:app"\n')
    source = decide_app(None, environ={}, cwd=folder)
    assert (source.spec, source.root) == ("there:app", folder)
