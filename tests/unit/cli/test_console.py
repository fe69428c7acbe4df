"""What people see: the timeline, the live view, tables and answers, wide and narrow."""

from __future__ import annotations

import pytest
from rich.console import RenderableType

from agentq.console.live import LiveView, RunMoment, count_by_name
from agentq.console.report import report
from agentq.console.tables import event_line, runs_table, steps_table
from agentq.console.timeline import stages_of, timeline
from agentq.console.words import ago, duration, one_line, open_console, plain
from agentq.core.models import Event, RunSummary, StepSummary
from tests.unit.cli.made import BEGIN, at, plain_console, rendered, step

WIDTHS = (40, 60, 80, 120, 200)


def fan_out() -> list[StepSummary]:
    members = [step("search", 1, 1 + n * 0.1, 1.2 + n * 0.1, number=n) for n in range(20)]
    return [step("list", 0, 0.5, 1, number=90), *members, step("write", 4, 4.5, 6, attempts=2, number=91)]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"),
        (0.0123, "12 ms"),
        (0.9999, "1.0 s"),
        (59.97, "1 min 00 s"),
        (125, "2 min 05 s"),
        (11_220, "3 h 07 min"),
        (190_000, "2 d 4 h"),
        (-1, "0 ms"),
        (None, "-"),
    ],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s ago"), (59, "59 s ago"), (61, "1 min ago"), (7300, "2 h ago"), (200_000, "2 d ago")],
)
def test_ages_have_one_unit(seconds: float, words: str) -> None:
    assert ago(BEGIN, at(seconds)) == words


def test_text_of_documents_cannot_steer_the_terminal() -> None:
    assert plain("a\x1b[2Jb\x9bc\td\n") == "a[2Jbc\td\n"
    assert one_line(" a\n\tb ") == "a b"


def test_many_steps_of_one_name_are_one_stage() -> None:
    assert [stage.label for stage in stages_of(fan_out())] == ["list", "search x20", "write"]
    few = [step("search", 0, 1, 2, number=n) for n in range(3)]
    assert [stage.label for stage in stages_of(few)] == ["search"] * 3


@pytest.mark.parametrize("width", WIDTHS)
def test_timeline_fits_its_console(width: int) -> None:
    shown = rendered(timeline(fan_out(), now=at(6), console=plain_console(width=width)), width=width)
    lines = shown.splitlines()
    assert len(lines) == 5
    assert all(len(line) <= width for line in lines)


def test_timeline_draws_queued_and_running_time() -> None:
    console = plain_console(width=100)
    lines = rendered(timeline([step("plan", 0, 5, 10)], now=at(10), console=console)).splitlines()
    bar = lines[1]
    assert bar.startswith("plan")
    assert bar.count("░") == pytest.approx(bar.count("█"), abs=1)
    assert lines[0].rstrip().endswith("10.0 s")


def test_timeline_shows_a_very_short_step_and_one_that_runs_still() -> None:
    steps = [step("short", 0, 0, 0.0001), step("long", 0, 1)]
    lines = rendered(timeline(steps, now=at(100), console=plain_console())).splitlines()
    assert lines[1].count("█") == 1
    assert lines[2].rstrip().endswith("█")


def test_timeline_without_block_characters() -> None:
    console = plain_console(encoding="ascii")
    shown = rendered(timeline(fan_out(), now=at(6), console=console))
    assert shown.isascii() or set(shown) - set(map(chr, range(128))) == {"≤"}
    assert "#" in shown


def test_timeline_before_the_first_step() -> None:
    assert "No step" in rendered(timeline([], now=BEGIN, console=plain_console()))


def moment(*, steps: list[StepSummary]) -> RunMoment:
    return RunMoment(
        run_id="3f2a81c0-0000",
        agent="research",
        status="running",
        began=BEGIN,
        now=at(3),
        steps=steps,
        notes=("started one worker",),
    )


def test_counts_by_name() -> None:
    steps = [
        step("search", 0, 1, 2),
        step("search", 0, 1, 2, status="failed", attempts=3),
        step("search", 0, 1),
        step("search", 0),
        step("search", 0, status="delayed"),
    ]
    assert count_by_name(steps)[0].words() == "2/5, 1 running, 2 queued, 1 failed, 1 tried again"


@pytest.mark.parametrize("width", WIDTHS)
def test_live_view_says_who_does_what(width: int) -> None:
    steps = [*fan_out(), step("check", 1, 2, worker="model-7@elsewhere")]
    shown = rendered(LiveView(moment(steps=steps)), width=width)
    assert all(len(line) <= width for line in shown.splitlines())
    assert "research 3f2a81c0" in shown
    assert "20/20" in shown
    assert "model-7  check" in " ".join(shown.split("\n")).replace("     ", "  ")
    assert "started one worker" in shown


def test_live_view_is_no_higher_than_the_terminal() -> None:
    steps = [step(f"name{n}", 0, 1, number=n) for n in range(200)]
    view = LiveView(moment(steps=steps))
    console = plain_console(width=80)
    lines = console.render_lines(view, console.options.update(height=20, max_width=80))
    assert len(lines) <= 21


def test_runs_in_a_narrow_terminal_keep_their_short_id() -> None:
    run = RunSummary(
        run_id="3f2a81c0-5e0f-4a50-b41d-000000000000",
        agent="research",
        status="succeeded",
        started_at=BEGIN,
        finished_at=at(4),
        tenant=None,
        priority="normal",
        version="1",
        parent_id=None,
        key=None,
    )
    wide = rendered(runs_table([run], now=at(10), console=plain_console(width=120)), width=120)
    narrow = rendered(runs_table([run], now=at(10), console=plain_console(width=60)), width=60)
    assert run.run_id in wide
    assert "3f2a81c0 " in narrow
    assert "succeeded" in narrow
    assert "tenant" not in wide


def test_steps_say_why_they_wait() -> None:
    waiting = step("search", 0, why="no worker serves pool gpu")
    shown = rendered(steps_table([waiting], now=at(3), console=plain_console(width=160)), width=160)
    assert "no worker serves pool gpu" in shown


def test_an_event_is_one_line() -> None:
    event = Event(
        offset=7,
        at=BEGIN,
        kind="step.failed",
        run_id="r",
        step_id="12345678-9",
        name="search",
        worker="tools-1@host",
        fields={"error": "a\nb", "attempt": 2},
    )
    assert "step.failed search 12345678 on tools-1 error=a b attempt=2" in rendered(event_line(event))


ANSWER = {
    "answer": "State is kept in a journal.",
    "quotations": [
        {"text": "The journal\nis the truth.", "file": "docs/a.md", "line": 12, "score": 3.14159},
        {"text": "[bold]not markup[/bold]", "file": "docs/b.md", "line": 3, "score": 1.0},
    ],
    "searched": {"files": 12, "parts": 3},
    "terms": ["a", "b"],
    "notes": [f"note {number}" for number in range(12)],
    "unread": [{"file": "x.pdf", "reason": "is encrypted"}],
}


@pytest.mark.parametrize("width", WIDTHS)
def test_an_answer_with_quotations(width: int) -> None:
    shown = rendered(report(ANSWER, console=plain_console(width=width)), width=width)
    assert shown.startswith("State is kept in a journal.")
    assert "“The journal is the truth.”" in " ".join(shown.replace("3.14", "").split())
    assert "docs/a.md:12" in shown
    assert "[bold]not markup[/bold]" in " ".join(shown.split())
    assert "Not read\n  x.pdf: is encrypted" in shown
    assert "note 9\n  and 2 more" in shown
    assert "searched: files 12, parts 3\nterms: a, b" in shown


@pytest.mark.parametrize(
    ("value", "words"),
    [("text", "text"), ({"a": [1]}, '"a"'), (None, "null"), (3, "3"), ({"answer": 42}, '"answer": 42')],
)
def test_other_results(value: object, words: str) -> None:
    shown: RenderableType = report(value, console=plain_console())
    assert words in rendered(shown)


def test_no_color_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert open_console().no_color
