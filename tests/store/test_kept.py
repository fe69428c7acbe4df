"""Messages that wait beside their record: they come back byte for byte, and an usual one takes little room."""

from __future__ import annotations

import json

import pytest
from celery import Celery

from tests.store.bench import Bench

ROOT = "0c5b3e9a-3f0e-4c8e-9a55-0d2f6a1d8a11"
STEP = "7f3d1f57-44ef-5b0c-8a4f-111111111111"


def celery_message(*, task_id: str, root: str, args: list[object]) -> str:
    """Return a message as Celery and kombu make it."""
    app = Celery("sender", broker="memory://", set_as_current=False)
    sent: list[str] = []
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        channel._put = lambda _queue, message, **_: sent.append(json.dumps(message, separators=(",", ":")))
        app.send_task(
            "research", args, task_id=task_id, root_id=root, connection=connection, headers={"agentq": {"k": "a"}}
        )
    return sent[0]


def check_comes_back(bench: Bench, message: str, *, step_id: str = ROOT) -> None:
    """Check that the message, made to wait, is taken as it was."""
    bench.worker()
    bench.store.offer([bench.step(step_id, root=ROOT, message=message, due_ms=bench.store.now_ms() + 3_600_000)])
    assert bench.take() == []
    bench.fire_timers()
    (got,) = bench.take_reply("w1").taken
    name, _, rest = got.message.decode().partition(",")
    assert json.loads(name + "}") == {"agentq": f"{ROOT}|{step_id}|1"}
    assert "{" + rest == message
    assert bench.look().parts("message") == []


@pytest.mark.parametrize("step_id", [ROOT, STEP])
@pytest.mark.parametrize("args", [[], [1], [12], [123], ["dé\x7f\n\x01", ROOT, STEP, "null"], ["x" * 9000]])
def test_a_message_comes_back_byte_for_byte(bench: Bench, step_id: str, args: list[object]) -> None:
    check_comes_back(bench, celery_message(task_id=step_id, root=ROOT, args=args), step_id=step_id)


def test_any_json_comes_back_byte_for_byte(bench: Bench) -> None:
    odd = json.dumps({"body": [ROOT, STEP, '\\","shadow":null', "\x1f\x01"], "headers": {}}, ensure_ascii=False)
    check_comes_back(bench, odd.replace(" ", ""), step_id=STEP)


def test_an_usual_message_takes_a_third_of_its_length(bench: Bench) -> None:
    message = celery_message(task_id=ROOT, root=ROOT, args=[])
    bench.store.offer([bench.step(ROOT, message=message, due_ms=bench.store.now_ms() + 3_600_000)])
    assert bench.client.strlen(bench.keys.message(ROOT, ROOT)) < len(message) / 3
