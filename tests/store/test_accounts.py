"""Budgets at the admission: reserved before, settled after, by each account that the step names; and a person asked."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from agentq.store.admissions import Admission, AdmissionReply
from agentq.store.refs import Holder
from tests.store.bench import TREE, Bench

DAY = [{"k": "=acme", "b": {"tokens": 100}, "nm": "tenant acme today"}]


def begin(bench: Bench, *, accounts: Any = TREE, **budget: int) -> None:
    """Start a run with this budget; it stays in the hands of a worker of its own."""
    bench.worker("root")
    bench.store.offer([bench.agent("run", queue="agents", budget=budget, accounts=None)])
    bench.take_one("root", queues=("agents",))


def held(bench: Bench, name: str, *, accounts: Any = TREE, worker: str = "w1") -> Holder:
    bench.store.offer([bench.step(name, root="run", accounts=accounts)])
    return bench.take_one(worker).holder


def ask(bench: Bench, holder: Holder, *, accounts: Any = TREE, **want: Any) -> AdmissionReply:
    return bench.store.admit(holder, Admission(accounts=accounts, **want), token=uuid.uuid4().hex)


def refused(reply: AdmissionReply) -> Any:
    assert reply.verdict == "refused"
    fields = reply.refusal["fields"]
    return fields["limit_name"], fields["used"], fields["limit"]


def test_what_is_reserved_and_used_never_exceeds_the_limit(bench: Bench) -> None:
    begin(bench, tokens=100)
    first = held(bench, "a")
    assert ask(bench, first, tokens=70).verdict == "go"
    second = held(bench, "b")
    assert refused(ask(bench, second, tokens=40)) == ("tokens", "70", "100")
    bench.finish(first, usage={"tokens": 20}, accounts=TREE, settles={})
    assert ask(bench, second, tokens=40).verdict == "go"
    tree = bench.store.tree("run")
    assert (tree["n_tokens"], tree["r_tokens"]) == (20, 40)
    bench.finish(second, usage={"tokens": 80}, accounts=TREE, settles={})
    # It has used more than it said; nothing may follow.
    assert refused(ask(bench, held(bench, "c"))) == ("tokens", "100", "100")


def test_a_killed_attempt_is_charged_what_it_had_reserved(bench: Bench) -> None:
    begin(bench, tokens=100, usd_micro=500)
    ask(bench, held(bench, "a", worker="w2"), tokens=70, usd_micro=300)
    bench.kill("w2")
    tree = bench.store.tree("run")
    assert (tree["n_tokens"], tree["r_tokens"], tree["n_usd_micro"], tree["r_usd_micro"]) == (70, 0, 300, 0)


def test_a_retry_settles_what_its_attempt_had_reserved_once(bench: Bench) -> None:
    begin(bench, tokens=100)
    holder = held(bench, "a")
    ask(bench, holder, tokens=70)
    bench.store.commit(
        holder, mode="again", status="RETRY", offers=[bench.step("a", root="run", accounts=TREE)],
        usage={"tokens": 10}, accounts=TREE, settles={},
    )  # fmt: skip
    again = bench.take_one().holder
    assert ask(bench, again, tokens=50).verdict == "go"
    tree = bench.store.tree("run")
    assert (tree["n_tokens"], tree["r_tokens"]) == (10, 50)


def test_attempts_count_each_time(bench: Bench) -> None:
    begin(bench, attempts=2)
    for name in ("a", "b"):
        assert ask(bench, held(bench, name), attempts=True).verdict == "go"
    assert refused(ask(bench, held(bench, "c"), attempts=True)) == ("attempts", "2", "2")


def test_a_step_beyond_the_number_is_refused_when_it_is_taken(bench: Bench) -> None:
    begin(bench, steps=1)
    bench.store.offer([bench.step(name, root="run", accounts=TREE) for name in ("a", "b")])
    first, second = bench.take_reply("w1", slots=2).taken
    assert (first.over_budget, second.over_budget) == (False, True)
    holder = Holder("run", "b", "w1", second.take)
    assert refused(ask(bench, holder)) == ("steps", "1", "1")
    bench.finish(holder, status="FAILURE")
    assert bench.store.tree("run")["n_steps"] == 1


def test_a_day_is_an_account_of_its_own_with_an_end(bench: Bench) -> None:
    begin(bench)
    first = held(bench, "a", accounts=DAY)
    assert ask(bench, first, accounts=DAY, tokens=100).verdict == "go"
    bench.finish(first, usage={"tokens": 90}, accounts=DAY, settles={})
    second = held(bench, "b", accounts=DAY)
    reply = ask(bench, second, accounts=DAY, tokens=20)
    assert refused(reply) == ("tokens", "90", "100")
    assert reply.refusal["fields"]["account"] == "tenant acme today"
    assert bench.without_end("allowance") == []


@pytest.mark.parametrize("raised", [True, False])
def test_a_person_is_asked_and_the_answer_holds(bench: Bench, raised: bool) -> None:
    asking = [{"k": "", "l": ["tokens"], "x": "ask"}]
    begin(bench, tokens=100)
    for name in ("a", "b"):
        assert ask(bench, held(bench, name, accounts=asking), accounts=asking, tokens=101).verdict == "waits"
    (question,) = bench.store.asks()
    assert "0 of 100 tokens" in question.question
    bench.store.answer("run", question.ask_id, "1000" if raised else "100", by="me")
    bench.tick()
    verdicts = [ask(bench, bench.take_one().holder, accounts=asking, tokens=101).verdict for _ in range(2)]
    assert verdicts == (["go", "go"] if raised else ["refused", "refused"])
    assert bench.store.asks() == []


def test_the_question_is_closed_with_its_run(bench: Bench) -> None:
    asking = [{"k": "", "l": ["tokens"], "x": "ask"}]
    bench.worker("root")
    bench.store.offer([bench.agent("run", queue="agents", budget={"tokens": 100})])
    run = bench.take_one("root", queues=("agents",)).holder
    ask(bench, held(bench, "a", accounts=asking), accounts=asking, tokens=101)
    bench.finish(run, inside=True)
    bench.tick()
    assert bench.store.asks() == []


def test_a_degraded_step_is_told_so(bench: Bench) -> None:
    cheaper = [{"k": "", "l": ["tokens"], "x": "degrade"}]
    begin(bench, tokens=10)
    reply = ask(bench, held(bench, "a", accounts=cheaper), accounts=cheaper, tokens=11)
    assert (reply.verdict, reply.refusal["code"]) == ("degraded", "budget_exceeded")
