"""Split mode: what the broker is to hear of, claims of what it names, and a store that changes its mode."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from agentq.store import Store
from agentq.store.refs import Holder, Offer, TakeReply
from agentq.store.unsent import LONGEST_PAUSE_MS, Hint, Post
from tests.kit.server import PrivateServer
from tests.store.bench import Bench
from tests.store.snapshot import Snapshot

PAUSE_MS = 30_000
PLAIN = '{"headers":{}}'


@pytest.fixture
def split(clean_server: PrivateServer) -> Iterator[Bench]:
    """A bench in split mode with one worker; at the end a worker in fused mode ends all that is left."""
    bench = Bench(clean_server, split=True)
    bench.worker("w1")
    yield bench
    bench.store.close()
    drain = Bench(clean_server)
    forget_the_workers(bench)
    drain.tick()
    drain.client.lrem(drain.keys.lane("q", 6), 0, PLAIN)
    drain.drain()
    drain.store.close()


@pytest.fixture
def fused(split: Bench, clean_server: PrivateServer) -> Iterator[Bench]:
    """The same store as processes in fused mode see it."""
    bench = Bench(clean_server)
    yield bench
    bench.store.close()


def publish(bench: Bench, *, now: bool = False) -> list[Post]:
    """Publish as a worker does; ``now``: as if the time of all had come."""
    if now:
        forget_the_workers(bench)
    return bench.store.publish(chunk=100, pause_ms=PAUSE_MS)


def forget_the_workers(bench: Bench) -> None:
    """Make all that is unsent overdue, as if no worker in split mode had looked for long."""
    unsent = bench.keys.of("unsent")
    for name in bench.client.zrange(unsent, 0, -1):
        bench.client.zadd(unsent, {name: 1})


def claim(bench: Bench, *names: str, worker: str = "w1", token: str | None = None, lane: int = 6) -> TakeReply:
    """Claim for hints of these names."""
    hints = [Hint(name, "q", lane) for name in names]
    return bench.store.claim(worker, token or uuid.uuid4().hex, hints, label=worker)


def name_of(offer: Offer, generation: int = 1) -> str:
    """Return the name that a step's hint holds."""
    return f"{offer.root}|{offer.id}|{generation}"


def holder_of(step: Offer, reply: TakeReply) -> Holder:
    """Return the attempt that a reply gave of a step."""
    return Holder(root=step.root, id=step.id, worker="w1", take=reply.taken[0].take)


def snapshot(bench: Bench) -> Snapshot:
    """Return all that stands in the store."""
    return Snapshot.of(bench.client, bench.keys)


def test_a_queued_step_is_published_once_and_again_until_it_is_claimed(split: Bench) -> None:
    step = split.step()
    split.store.offer([step])
    since = int(split.record(step.id)["c"])
    assert publish(split) == [Post(name_of(step), "q", 6, PAUSE_MS, None, since)]
    assert publish(split) == []
    pauses = [publish(split, now=True)[0].pause_ms for _ in range(9)]
    assert pauses == [min(PAUSE_MS * 2**n, LONGEST_PAUSE_MS) for n in range(1, 10)]
    assert not snapshot(split).misplaced()

    taken = claim(split, name_of(step)).taken
    assert [each.take for each in taken] == [1]
    assert publish(split, now=True) == []
    assert not snapshot(split).misplaced()


def test_a_claim_takes_only_what_waits_in_the_generation_that_is_named(split: Bench) -> None:
    step, other = split.step(), split.step()
    split.store.offer([step, other])
    names = (name_of(step, 2), name_of(step), name_of(step), "nonsense", "no|such|1", "||", name_of(other))
    assert len(claim(split, *names).taken) == 2
    assert claim(split, name_of(step)).taken == ()
    assert not snapshot(split).misplaced()


def test_a_claim_that_is_asked_for_again_gets_the_same_answer(split: Bench) -> None:
    step = split.step()
    split.store.offer([step])
    token = uuid.uuid4().hex
    first = claim(split, name_of(step), token=token)
    assert claim(split, name_of(step), token=token) == first
    assert claim(split, name_of(step)).taken == ()


def test_a_dead_worker_claims_nothing(split: Bench) -> None:
    step = split.step()
    split.store.offer([step])
    split.store.leave("w1")
    assert claim(split, name_of(step)).refused


def test_what_is_handed_back_waits_for_the_broker_again(split: Bench) -> None:
    step = split.step()
    split.store.offer([step])
    publish(split)
    claim(split, name_of(step))
    split.store.requeue("w1", 1)
    assert [post.name for post in publish(split)] == [name_of(step, 2)]
    assert len(claim(split, name_of(step)).taken) == 1, "the old hint serves as well as the new one"
    assert claim(split, name_of(step, 2)).taken == ()


def test_what_waits_is_counted_by_queue_and_lane(split: Bench) -> None:
    urgent, plain = split.step(lane=0), split.step(kind="plain", message=PLAIN)
    split.store.offer([urgent, split.step(), split.step(queue="other"), plain])
    assert split.store.waiting("q") == {"critical": 1, "high": 0, "normal": 2, "low": 0}
    split.store.confirm(publish(split))
    claim(split, name_of(urgent), lane=0)
    assert split.store.waiting("q") == {"critical": 0, "high": 0, "normal": 1, "low": 0}


def test_a_plain_message_stays_until_the_broker_has_confirmed_it(split: Bench) -> None:
    split.store.offer([split.step(kind="plain", queue="a\nb", message=PLAIN)])
    post = publish(split)[0]
    assert (post.queue, post.lane, post.message) == ("a\nb", 6, PLAIN)
    assert publish(split, now=True)[0].message == post.message, "whoever was to publish it has died"
    split.store.confirm([post])
    split.store.confirm([post])
    assert publish(split, now=True) == []
    assert split.client.hgetall(split.keys.of("outbox")) == {}
    assert split.client.hgetall(split.keys.of("queued")) == {}


def test_what_is_no_message_leaves_the_outbox_as_a_dead_letter(split: Bench) -> None:
    """Also bytes that are no text: whoever publishes must be able to read the others beside them."""
    raw = b"\xff no message"
    split.client.lpush(split.keys.lane("q", 6), raw)
    split.store.relist(["q"], plain=True)
    (post,) = publish(split)
    assert post.message is not None
    split.store.shelve(
        post.message.encode(errors="surrogateescape"), queue="q", lane=6, words="no JSON", outbox_name=post.name
    )
    assert publish(split, now=True) == []
    assert split.client.hgetall(split.keys.of("outbox")) == {}
    assert split.client.hgetall(split.keys.of("queued")) == {}
    (letter,) = split.store.letters()
    assert split.store.letter(letter.letter_id) == (letter, raw)
    assert split.store.drop_letter(letter.letter_id, label="x") == "dropped"


def test_steps_of_processes_in_fused_mode_come_to_the_broker(split: Bench, fused: Bench) -> None:
    steps = [fused.step(lane=lane) for lane in (0, 6, 6, 9)]
    fused.store.offer([*steps, fused.step(kind="plain", message=PLAIN)])
    assert split.store.relist(["q"]) == 4
    assert split.store.relist(["q"]) == 0
    assert len(fused.lane()) == 1, "a plain message stays where the broker is this Redis"
    assert split.store.relist(["q"], plain=True) == 1
    assert not snapshot(split).misplaced()
    posts = publish(split)
    assert sum(len(claim(split, post.name, lane=post.lane).taken) for post in posts) == 4


def test_a_step_that_kombu_took_out_of_its_lane_comes_to_the_broker_once(split: Bench, fused: Bench) -> None:
    step = fused.step()
    fused.store.offer([step])
    fused.client.delete(fused.keys.lane("q", 6))
    found = [(step.root, step.id, step.message)]
    assert split.store.relist([], found=found) == 1
    assert split.store.relist([], found=found) == 0
    assert [post.name for post in publish(split)] == [name_of(step)]
    claim(split, name_of(step))
    assert split.store.relist([], found=found) == 0, "a late duplicate of what runs"


def test_steps_come_into_lanes_when_only_workers_in_fused_mode_are_left(split: Bench, fused: Bench) -> None:
    split.store.offer([split.step(), split.step(lane=0), split.step(kind="plain", message=PLAIN)])
    publish(split)
    fused.store.tick(3000)
    assert split.client.exists(*(split.keys.lane("q", lane) for lane in (0, 6))) == 0
    forget_the_workers(split)
    fused.store.tick(3000)
    assert fused.store.waiting("q") == {"critical": 1, "high": 0, "normal": 2, "low": 0}
    assert not snapshot(fused).misplaced()
    assert not split.client.exists(split.keys.of("unsent"), split.keys.of("outbox"), split.keys.of("queued"))
    taken = fused.take("w1", slots=5)
    assert len(taken) == 3
    for got in taken:
        if not got.holder.id:
            fused.store.drop("w1", got.holder.take)


def test_a_store_of_fused_mode_is_not_touched_by_it(fused: Bench) -> None:
    store: Store = fused.store
    store.offer([fused.step()])
    assert store.publish(chunk=10, pause_ms=PAUSE_MS) == []


def test_a_suspect_stays_one_when_the_mode_changes(split: Bench, fused: Bench) -> None:
    for modes in ((split, fused), (fused, split)):
        before, after = modes
        step = before.step()
        before.store.offer([step])
        taken = claim(split, name_of(step)) if before is split else before.take_reply("w1")
        before.store.requeue("w1", taken.taken[0].take, lost=True)
        if after is fused:
            forget_the_workers(split)
            fused.store.tick(3000)
            assert fused.take_reply("w1", idle=False).taken == ()
            alone = fused.store.take("w1", uuid.uuid4().hex, slots=1, label="w1", queues=["q"], idle=True)
        else:
            assert split.store.relist(["q"]) == 1
            assert claim(split, name_of(step, 2)).taken == ()
            alone = split.store.claim("w1", uuid.uuid4().hex, [Hint(name_of(step, 2), "q", 6)], label="w1", idle=True)
        assert len(alone.taken) == 1
        split.finish(holder_of(step, alone))
