"""A step that names resources is left, for a moment, to an idle worker that has them open."""

from __future__ import annotations

from agentq.store.refs import Offer
from tests.store.bench import LEASE_MS, Bench

MODEL = "\nmodel\n"


def warm(bench: Bench, worker: str, *names: str) -> None:
    """Have a worker say what it has open, as its keeper does."""
    bench.store.run_script("renew", worker, LEASE_MS, "warm", "".join(f"\n{name}\n" for name in names))


def fleet(bench: Bench) -> None:
    for name in ("cold", "warm"):
        bench.worker(name)
    warm(bench, "warm", "model", "other")


def offer(bench: Bench, *steps: Offer) -> None:
    """Offer steps that came only just now for the next minute: a machine may stand still for longer than a moment."""
    bench.store.offer(list(steps))
    for step in steps:
        bench.client.hincrby(bench.keys.step(step.root, step.id), "c", 60_000)


def test_it_goes_to_the_warm_one_which_is_told(bench: Bench) -> None:
    fleet(bench)
    offer(bench, bench.step("s1", resources=("model",)))
    bench.client.delete(bench.keys.bell("q"))
    assert bench.take("cold") == []
    assert bench.client.llen(bench.keys.bell("q")) == 1, "the next one that listens looks for it"
    assert bench.record("s1")["s"] == "q"
    assert bench.take_one("warm").holder.id == "s1"


def test_after_a_moment_it_is_anybodys(bench: Bench) -> None:
    fleet(bench)
    bench.store.offer([bench.step("s1", resources=("model",))])
    bench.client.hincrby(bench.keys.step("s1", "s1"), "c", -100)
    assert bench.take_one("cold").holder.id == "s1"


def test_the_others_and_their_order_stay_as_they_are(bench: Bench) -> None:
    """What needs nothing, or more than the warm one has, is taken; as many are left as it has slots."""
    fleet(bench)
    offers = [
        bench.step("a", resources=("model",)),
        bench.step("b"),
        bench.step("c", resources=("model", "third")),
        bench.step("d", resources=("model",)),
        bench.step("urgent", lane=0, resources=("other",), queue="q2"),
    ]
    offer(bench, *offers)
    assert [got.holder.id for got in bench.take("cold", slots=9)] == ["b", "c", "d"]
    assert bench.take_one("cold", queues=["q2"]).holder.id == "urgent", "the warm one does not serve that queue"
    assert bench.take_one("warm").holder.id == "a"


def test_two_of_one_lane_keep_their_order(bench: Bench) -> None:
    fleet(bench)
    bench.store.enroll("warm", label="warm", queues=("q",), concurrency=2, lease_ms=LEASE_MS)
    offer(bench, *(bench.step(name, resources=("model",)) for name in ("a", "b", "c")))
    assert [got.holder.id for got in bench.take("cold", slots=9)] == ["c"]
    assert [got.holder.id for got in bench.take("warm", slots=9)] == ["a", "b"]


def test_of_a_tenant_too(bench: Bench) -> None:
    fleet(bench)
    card = {"tenant": "acme"}
    offer(bench, bench.step("a", resources=("model",), card=card), bench.step("b", card=card), bench.step("c"))
    assert {got.holder.id for got in bench.take("cold", slots=9)} == {"b", "c"}
    assert bench.store.waiting("q")["normal"] == 1
    assert bench.take_one("warm").holder.id == "a"
    assert bench.store.waiting("q")["normal"] == 0


def test_a_warm_one_that_is_busy_dead_or_takes_nothing_is_not_waited_for(bench: Bench) -> None:
    fleet(bench)
    bench.store.offer([bench.step("held")])
    held = bench.take_one("warm").holder
    offer(bench, bench.step("s1", resources=("model",)))
    assert bench.take_one("cold").holder.id == "s1"
    bench.finish(held)
    bench.client.hset(bench.keys.worker("warm"), "report", '{"why": "drained"}')
    offer(bench, bench.step("s2", resources=("model",)))
    assert bench.take_one("cold").holder.id == "s2"
    bench.client.hdel(bench.keys.worker("warm"), "report")
    bench.kill("warm")
    offer(bench, bench.step("s3", resources=("model",)))
    assert bench.take_one("cold").holder.id == "s3"


def test_who_has_nothing_open_any_more_or_is_gone_is_forgotten(bench: Bench) -> None:
    fleet(bench)
    warm(bench, "cold", "model")
    assert set(bench.client.hgetall(bench.keys.of("warm"))) == {b"warm", b"cold"}
    warm(bench, "cold")
    bench.store.leave("warm")
    assert bench.client.hgetall(bench.keys.of("warm")) == {}
