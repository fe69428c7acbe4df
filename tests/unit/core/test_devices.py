"""The setting's grammar, the operator's choice, what a tag means, and which device a slot gets."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as some

from agentq.core.devices import Device, decide_device, decide_devices, decide_visible, is_gpu_pool, read_devices


def names(devices: tuple[Device, ...]) -> list[str]:
    return [device.id for device in devices]


def test_a_number_says_how_many_and_nothing_else() -> None:
    assert names(read_devices(" 3 ")) == ["0", "1", "2"]
    assert read_devices("0") == ()
    assert {device.describe() for device in read_devices("2")} == {"a device of unknown kind"}


def test_a_list_says_kinds_memory_and_names() -> None:
    assert read_devices("a100:80,a100:80") == read_devices("2xa100:80") == read_devices("2 x a100 : 80GB")
    assert [device.describe() for device in read_devices("2xA100 SXM:80,l4:24")] == [
        "A100 SXM (80 GB)",
        "A100 SXM (80 GB)",
        "l4 (24 GB)",
    ]
    assert names(read_devices("a100:40@GPU-5ac1,l4@MIG-7f/1/0")) == ["GPU-5ac1", "MIG-7f/1/0"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no device: write a number such as 4"),
        ("a100:", '"a100:" is no device'),
        ("-1", "is no device"),
        ("a100:80,4", '"4" is no device'),
        ("0xa100", "leave it out"),
        ("2xa100@GPU-1", "one name to 2 devices"),
        ("a100@1,l4", "name all, or none"),
        ("a100@1,l4@1", "two devices have one name"),
        ("9999", "more than one machine has"),
        ("300xa100", "more than one machine has"),
    ],
)
def test_nonsense_is_refused_with_its_reason(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_devices(text)


@given(some.text(max_size=30))
def test_any_text_is_read_or_refused_as_a_value(text: str) -> None:
    with suppress(ValueError):
        devices = read_devices(text)
        assert len(set(names(devices))) == len(devices)


def test_what_the_operator_hides_is_left_out() -> None:
    four = read_devices("4")
    assert decide_visible(four, None) == four
    assert names(decide_visible(four, "2, 0")) == ["2", "0"]
    assert decide_visible(four, "") == decide_visible(four, "-1") == decide_visible(four, "NoDevFiles") == ()
    cards = read_devices("a100@GPU-aa1,a100@GPU-ab2")
    assert names(decide_visible(cards, "GPU-ab")) == ["GPU-ab2"]
    assert names(decide_visible(cards, "1")) == ["GPU-ab2"]
    with pytest.raises(ValueError, match='"7" names no device of this machine; there are 0, 1, 2, 3'):
        decide_visible(four, "0,7")
    with pytest.raises(ValueError, match="names more than one device"):
        decide_visible(cards, "GPU-a")


def test_of_a_gpu_in_parts_its_number_is_the_first_part() -> None:
    parts = (Device("MIG-1", 0), Device("MIG-2", 0), Device("GPU-3", 1))
    assert names(decide_visible(parts, "0,1")) == ["MIG-1", "GPU-3"]
    assert names(decide_visible(parts, "MIG-2")) == ["MIG-2"]


@pytest.mark.parametrize(
    ("kind", "tag", "fits"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100", True),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB", True),
        ("NVIDIA A100-SXM4-80GB", "a10", False),
        ("NVIDIA A10", "a100", False),
        ("NVIDIA GeForce RTX 4090", "rtx4090", True),
        ("NVIDIA GeForce RTX 4090", "rtx 409", False),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "h100", True),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "1g.10gb", True),
        ("NVIDIA H200", "any", True),
        ("", "a100", True),
    ],
)
def test_a_tag_names_a_product_by_its_words(kind: str, tag: str, fits: bool) -> None:
    assert bool(decide_devices([Device("0", 0, kind)], {"gpu": tag})) is fits


def test_memory_is_at_least_what_the_tag_says() -> None:
    cards = [Device("0", 0, "NVIDIA L4", 24.1), Device("1", 1, "NVIDIA A100", 85.9), Device("2", 2)]
    assert names(decide_devices(cards, {"gpu": "any", "vram_gb": "80"})) == ["1", "2"]
    assert names(decide_devices(cards, {"gpu": "l4", "region": "eu"})) == ["0", "2"]


def test_slots_take_the_devices_in_turn() -> None:
    cards = read_devices("2")
    assert [decide_device(cards, slot).id for slot in range(5)] == ["0", "1", "0", "1", "0"]


def test_a_pool_with_the_tag_gpu_is_one_with_devices() -> None:
    assert is_gpu_pool({"gpu": "any"})
    assert not is_gpu_pool({"region": "eu"})
