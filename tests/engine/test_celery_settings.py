"""An app is set up in Celery's own ways: a settings module under a namespace, autodiscovery."""

from __future__ import annotations

from tests.kit.sample import Library


def test_settings_are_read_under_their_prefix(library: Library) -> None:
    assert library.app.conf.task_track_started is True
    assert library.app.conf.timezone == "UTC"
    assert set(library.app.conf.beat_schedule) == {"note-a-line", "start-an-agent"}


def test_steps_and_agents_are_discovered(library: Library) -> None:
    names = {name for name in library.app.tasks if name.startswith("library.")}
    assert {"library.add", "library.fan", "library.double_agent"} <= names


def test_options_live_in_one_attribute(library: Library) -> None:
    """Celery's own names on tasks and apps are not shadowed."""
    from celery import Task

    assert library.task("add").agentq is not None
    assert library.task("add").max_retries == Task.max_retries
    assert "step" not in {str(step) for step in library.app.steps}
