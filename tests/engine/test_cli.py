"""The command line as a user has it: real processes, a real server, exit codes and documents."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentq.store.keys import Keys
from tests.kit.process import ROOT, ManagedProcess, clean_environment
from tests.kit.server import PrivateServer
from tests.kit.waiting import wait_until

AGENTS = '''
from datetime import timedelta
from agentq import AgentQ, Run

app = AgentQ("agents")


@app.step(pool="tools")
def greet(name: str) -> str:
    return f"Hello, {name}!"


@app.step(pool="tools")
def refuse(name: str) -> str:
    raise ValueError(f"no {name} here")


@app.agent(pool="managers")
async def hello(run: Run, names: list[str], loud: bool = False) -> list[str]:
    """Greet people."""
    found = await run.map(greet, names)
    return [name.upper() for name in found] if loud else found


@app.agent(pool="managers")
async def fails(run: Run) -> str:
    return await run.call(refuse, "Ada")


@app.agent(pool="managers")
async def asks(run: Run, question: str) -> bool:
    return await run.ask(question, bool)


@app.agent(pool="managers")
async def waits(run: Run) -> str:
    return await run.wait_for("go")
'''

Answer = tuple[int, str, str]
Command = Callable[..., Answer]


class Zygote:
    """Runs commands in forks of one process that has loaded everything."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self._folder = folder
        self._env = env
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.cli_zygote"],
            cwd=ROOT,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *argv: str, more: dict[str, str] | None = None) -> Answer:
        """Exit code, stdout and stderr of `agentq` with these arguments."""
        out, err = self._folder / "stdout", self._folder / "stderr"
        request = {
            "argv": argv,
            "env": {**self._env, **(more or {})},
            "cwd": str(self._folder),
            "out": str(out),
            "err": str(err),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return code, out.read_text(), err.read_text()

    def close(self) -> None:
        """The process has ended."""
        self._process.communicate()


def command_in(folder: Path, env: dict[str, str]) -> Command:
    """A function that runs `agentq` with its arguments and gives exit code, stdout and stderr."""

    def run(*argv: str, more: dict[str, str] | None = None) -> Answer:
        ended = subprocess.run(
            [sys.executable, "-m", "agentq.cli", *argv],
            cwd=folder,
            env={**env, **(more or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return ended.returncode, ended.stdout, ended.stderr

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("project")
    (made / "agents.py").write_text(AGENTS)
    (made / "agentq.toml").write_text('app = "agents:app"\n')
    return made


@pytest.fixture(scope="module")
def agentq(folder: Path, module_server: PrivateServer) -> Iterator[Command]:
    """The command in a project whose pools are served by one worker each, started by the command itself."""
    env = clean_environment({"AGENTQ_REDIS_URL": module_server.celery_url})
    workers = [
        ManagedProcess(
            [sys.executable, "-m", "agentq.cli", "worker", "--pool", pool, "--concurrency", "2"],
            log=folder / f"{pool}.log",
            env=env,
            cwd=folder,
        )
        for pool in ("managers", "tools")
    ]
    command = Zygote(folder, env)
    try:
        for worker in workers:
            worker.start()
        wait_until(
            lambda: len(document(command("workers", "list", "--json"))) == 2,
            description="both workers are listed",
            report=lambda: "\n".join(worker.log()[-2000:] for worker in workers),
        )
        yield command
    finally:
        command.close()
        for worker in workers:
            worker.terminate(timeout=10)


def document(answer: Answer, *, code: int = 0) -> Any:
    """The one JSON document on stdout, of a command that ended with the code."""
    assert answer[0] == code, answer
    return json.loads(answer[1])


def test_run_prints_one_document(agentq: Command) -> None:
    run = document(agentq("run", "hello", "--names", '["Ada", "Grace"]', "--loud", "--json"))
    assert set(run) == {"run_id", "agent", "status", "result", "error", "usage", "saved", "steps"}
    assert (run["agent"], run["status"], run["error"]) == ("hello", "succeeded", None)
    assert run["result"] == ["HELLO, ADA!", "HELLO, GRACE!"]
    assert [step["status"] for step in run["steps"]] == ["succeeded", "succeeded"]


def test_run_shows_answer_and_timeline(agentq: Command) -> None:
    code, out, err = agentq("run", "hello", "--names", "Ada")
    assert code == 0
    assert '"Hello, Ada!"' in out
    assert "hello succeeded" in out
    assert "greet" in out
    assert "█" in out
    assert "succeeded" in err


def test_a_failed_run_ends_with_one(agentq: Command) -> None:
    run = document(agentq("run", "fails", "--json"), code=1)
    assert run["status"] == "failed"
    assert run["result"] is None
    assert "no Ada here" in run["error"]["message"]
    code, _out, err = agentq("run", "fails")
    assert code == 1
    assert "no Ada here" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["run", "helo"], 'Did you mean "hello"?'),
        (["run", "hello"], 'needs "names"'),
        (["run", "hello", "--names", "Ada", "--lod"], 'Did you mean "--loud"?'),
        (["run", "hello", "--names", "[1]"], "agentq run hello --names"),
        (["runs", "show", "00000000-0000-0000-0000-000000000000"], "00000000-0000-0000-0000-000000000000"),
        (["worker", "--pool", "nowhere"], "nowhere"),
        (["asks", "answer", "nothing", "yes"], "agentq asks list"),
        (["asks", "answer", "", "yes"], "agentq asks list"),
        (["runs", "cancel", ""], "is not in the store"),
        (["dead", "drop", ""], "agentq dead list"),
        (["runs", "retry", "x", "--budget-usd", "much"], "'much' is no amount of money"),
        (["runs", "retry", "x", "--budget-usd", "-1"], "'-1' is no amount of money"),
    ],
)
def test_wrong_use_ends_with_two(agentq: Command, argv: list[str], words: str) -> None:
    code, out, err = agentq(*argv)
    assert code == 2, (out, err)
    assert words in err
    assert "Traceback" not in err
    assert not out


def test_a_question_is_listed_and_answered(agentq: Command) -> None:
    run_id = document(agentq("run", "asks", "--question", "Publish?", "--detach", "--json"))["run_id"]
    asks = wait_until(
        lambda: document(agentq("asks", "list", "--run", run_id, "--json")), description="the ask is open"
    )
    assert asks[0]["question"] == "Publish?"
    assert agentq("asks", "answer", asks[0]["ask_id"], "perhaps")[0] == 2
    assert document(agentq("asks", "answer", asks[0]["ask_id"], "yes", "--json"))["answer"] is True
    shown = document(agentq("runs", "show", run_id[:13], "--follow", "--json"))
    assert (shown["status"], shown["result"]) == ("succeeded", True)


def test_signal_events_and_cancel(agentq: Command) -> None:
    first, second = (document(agentq("run", "waits", "--detach", "--json"))["run_id"] for _ in range(2))
    assert agentq("runs", "signal", first, "go", "not json")[0] == 2
    assert document(agentq("runs", "signal", first, "go", '"now"', "--json"))["payload"] == "now"
    assert document(agentq("runs", "show", first, "--follow", "--json"))["result"] == "now"
    events = document(agentq("runs", "events", first, "--json"))
    assert [event["offset"] for event in events] == sorted(event["offset"] for event in events)
    after = events[0]["offset"]
    assert document(agentq("runs", "events", first, "--after", str(after), "--json")) == events[1:]
    lines = agentq("runs", "events", first, "--follow", "--json")[1].splitlines()
    assert [json.loads(line) for line in lines] == events
    assert "is told to stop" in agentq("runs", "cancel", second, "--why", "enough")[1]
    assert document(agentq("runs", "show", second, "--follow", "--json"), code=1)["status"] == "cancelled"
    assert document(agentq("runs", "show", second, "--json"))["status"] == "cancelled"
    assert "has ended already; it is cancelled" in agentq("runs", "cancel", second)[1]


def test_retry_and_fork(agentq: Command) -> None:
    run_id = document(agentq("run", "fails", "--json"), code=1)["run_id"]
    retried = document(agentq("runs", "retry", run_id[:13], "--budget-steps", "5", "--json"))
    assert retried["from"] == run_id
    assert f"goes on as run {retried['run_id']}" in agentq("runs", "retry", run_id)[1]
    shown = document(agentq("runs", "show", retried["run_id"], "--follow", "--json"), code=1)
    assert shown["status"] == "failed"
    step = shown["steps"][0]["step_id"]
    forked = document(agentq("runs", "fork", retried["run_id"], step[:13], "--json"))
    assert document(agentq("runs", "show", forked["run_id"], "--follow", "--json"), code=1)["status"] == "failed"
    assert agentq("runs", "fork", run_id, "nothing")[0] == 2


def test_listings(agentq: Command) -> None:
    run_id = document(agentq("run", "hello", "--names", "Ada", "--json"))["run_id"]
    runs = document(agentq("runs", "list", "--agent", "hello", "--status", "succeeded", "--json"))
    assert runs[0]["run_id"] == run_id
    assert run_id in agentq("runs", "list")[1]
    pools = {row["pool"]: row for row in document(agentq("pools", "--json"))}
    assert len(pools["tools"]["workers"]) == len(pools["managers"]["workers"]) == 1
    agents = {row["agent"]: row for row in document(agentq("agents", "--json"))}
    assert agents["hello"]["pool"] == "managers"
    assert set(agents["hello"]["parameters"]) == {"names", "loud"}
    for listing in (["pools"], ["agents"], ["workers", "list"]):
        code, out, _err = agentq(*listing, more={"COLUMNS": "60"})
        assert code == 0
        assert all(len(line) <= 60 for line in out.splitlines())


def test_steps_that_must_run_alone_are_told_of(agentq: Command, module_server: PrivateServer) -> None:
    """In a pool without a worker, else one would run them."""
    name = next(row["pool"] for row in document(agentq("pools", "--json")) if not row["workers"])
    suspects = Keys().of("suspects", name)
    module_server.client.rpush(suspects, "one", "another")
    try:
        rows = {row["pool"]: row["suspects"] for row in document(agentq("pools", "--json"))}
        words = agentq("pools", more={"COLUMNS": "200"})[1]
    finally:
        module_server.client.delete(suspects)
    assert {pool: number for pool, number in rows.items() if number} == {name: 2}
    assert "2 wait to run alone" in words


def test_doctor_finds_what_is_wrong(agentq: Command, module_server: PrivateServer) -> None:
    before = module_server.client.config_get("maxmemory-policy")
    module_server.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        found = {row["what"]: row for row in document(agentq("doctor", "--json"), code=1)["findings"]}
    finally:
        module_server.client.config_set("maxmemory-policy", str(before["maxmemory-policy"]))
    assert found["maxmemory-policy"]["level"] == "bad"
    assert "noeviction" in found["maxmemory-policy"]["advice"]
    assert found["server version"]["level"] == "ok"
    assert found["pool tools"]["level"] == "ok"


def test_a_server_out_of_reach_ends_with_three(agentq: Command) -> None:
    away = {"AGENTQ_REDIS_URL": "redis://:hidden-word@127.0.0.1:1/0"}
    for argv in (["runs", "list"], ["run", "hello", "--names", "Ada"], ["doctor"]):
        code, out, err = agentq(*argv, more=away)
        assert code == 3, (argv, out, err)
        assert "hidden-word" not in out + err
        assert "Traceback" not in err
    assert document(agentq("doctor", "--json", more=away), code=3)["findings"]
