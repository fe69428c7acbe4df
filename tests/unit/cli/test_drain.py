"""What a word of `agentq drain` means, and what a listing says of workers."""

from __future__ import annotations

from typing import Any

import pytest

from agentq.cli.drain import Target, decide_target
from agentq.cli.errors import CommandRefused
from agentq.cli.listings import device_lines, state_of
from agentq.core.health import decide_idle_workers
from agentq.store.workers import WorkerCard


def card(identity: str, label: str, host: str, **more: Any) -> WorkerCard:
    fields: dict[str, Any] = {
        "queues": ("tools",),
        "concurrency": 2,
        "held": 0,
        "lease_ms": 3000,
        "details": {},
        **more,
    }
    return WorkerCard(id=identity, label=label, **{**fields, "details": {"host": host, **fields["details"]}})


CARDS = [card("aaaa1111", "tools-1@gpu-7", "gpu-7"), card("bbbb2222", "model@gpu-8", "gpu-8", queues=("model",))]


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("tools-1@gpu-7", "worker", "aaaa1111"),
        ("tools-1", "worker", "aaaa1111"),
        ("bbbb22", "worker", "bbbb2222"),
        ("gpu-7", "node", "gpu-7"),
        ("tools", "pool", "tools"),
        ("declared", "pool", "declared"),
        ("pool:model", "pool", "model"),
        ("worker:model", "worker", "bbbb2222"),
        ("gone-node", "node", "gone-node"),
    ],
)
def test_names_of_workers_machines_and_pools(text: str, kind: str, name: str) -> None:
    found = decide_target(text, pools=["declared"], cards=CARDS, drained=["node|gone-node"])
    assert (found.kind, found.name) == (kind, name)
    assert found.mark == f"{kind}|{name}"


def test_what_is_nothing_or_several_is_refused() -> None:
    with pytest.raises(CommandRefused, match='"model" is several things: worker:bbbb2222, pool:model'):
        decide_target("model", pools=[], cards=CARDS)
    with pytest.raises(CommandRefused, match="There are: gpu-7, gpu-8, model, model@gpu-8, tools, tools-1@gpu-7"):
        decide_target("nobody", pools=[], cards=CARDS)
    with pytest.raises(CommandRefused, match="There are: none"):
        decide_target("x", pools=[], cards=[])
    assert decide_target("worker:x", pools=[], cards=[card("x", "x", "x")]) == Target("worker", "x", "x")


def test_a_worker_says_whether_it_takes_and_how_its_devices_are_used() -> None:
    device = {"id": "GPU-1", "index": 0, "kind": "NVIDIA L4", "memory_gb": 24.1}
    busy = card(
        "c", "c", "h", details={"devices": [device]}, report={"devices": {"GPU-1": {"busy": 0.4, "used_gb": 5.2}}}
    )
    assert (state_of(busy), device_lines(busy)) == ("takes work", ["NVIDIA L4, 5 of 24 GB, 40% busy"])
    unknown = card("c", "c", "h", details={"devices": [{**device, "kind": "", "memory_gb": None}]})
    assert device_lines(unknown) == ["device GPU-1"]
    assert state_of(card("c", "c", "h", report={"why": "drained"})) == "takes nothing: drained"
    assert state_of(card("c", "c", "h", report={"left_out": ["q"]})) == "takes nothing of q: drained"


def test_the_doctor_tells_who_takes_nothing_and_what_is_drained() -> None:
    found = decide_idle_workers({"w@h": "9 MiB of memory are free"}, ["node|h", "worker|x", "pool|p"])
    assert [(each.what, each.level) for each in found] == [
        ("worker w@h", "warn"),
        ("node h", "warn"),
        ("pool p", "warn"),
    ]
    assert "9 MiB" in found[0].words
    assert "agentq drain pool:p --undo" in found[2].advice
