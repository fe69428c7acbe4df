"""What is written to a journal is read back, and what cannot be read is told."""

import json
from dataclasses import FrozenInstanceError
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentq.core.errors import JournalUnreadable
from agentq.core.journal import (
    Answer,
    Ask,
    AskKind,
    Cancel,
    Entry,
    Joined,
    Result,
    ResultStatus,
    Signal,
    Start,
    Tick,
    decode,
    encode,
    failed,
    ok,
)
from tests.unit.core.test_codec import jsonables, texts

times = st.none() | st.integers(0, 2**53)
some_text = st.none() | texts
schemas = st.none() | st.dictionaries(texts, texts, min_size=1)
lags = st.lists(st.tuples(st.integers(1, 99), st.integers(0, 2**53)), max_size=3).map(tuple)
inputs = st.one_of(
    st.builds(Start, t=times, version=some_text),
    st.builds(Start, t=times, version=some_text, origin=texts, lags=lags),
    st.builds(Result, t=times, id=texts, status=st.sampled_from(get_args(ResultStatus)), value=jsonables),
    st.builds(Result, t=times, id=texts, status=st.sampled_from(get_args(ResultStatus)), large=st.just(True)),
    st.builds(Joined, t=times, id=texts),
    st.builds(Signal, t=times, name=texts, id=texts, payload=jsonables),
    st.builds(Answer, t=times, id=texts, value=jsonables),
    st.builds(Tick, t=times),
    st.builds(Cancel, t=times, why=some_text),
)
asks = st.builds(
    Ask,
    id=texts,
    key=texts,
    kind=st.sampled_from(get_args(AskKind)),
    name=texts,
    after=st.integers(0, 10_000),
    members=st.none() | st.integers(0, 10_000),
    question=some_text,
    answer_schema=schemas,
    again=st.booleans(),
    undoes=some_text,
)


@given(inputs | asks)
def test_an_entry_is_read_back_as_it_was_written(entry: Entry) -> None:
    assert decode(encode(entry)) == entry
    assert decode(encode(entry).encode()) == entry


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (Start(t=5, version="2"), {"k": "start", "t": 5, "version": "2"}),
        (ok("a", [1]), {"k": "result", "id": "a", "s": "ok", "v": [1]}),
        (
            failed("a", {"code": "c", "fields": {}}),
            {"k": "result", "id": "a", "s": "error", "v": {"code": "c", "fields": {}}},
        ),
        (Result(id="a", status="ok", large=True), {"k": "result", "id": "a", "s": "ok", "ref": 1}),
        (Joined(t=1, id="a"), {"k": "joined", "t": 1, "id": "a"}),
        (Joined(t=1, id="a", at=(2, 0)), {"k": "joined", "t": 1, "id": "a", "at": [2, 0]}),
        (Signal(t=1, name="n", id="i", payload=None), {"k": "signal", "t": 1, "n": "n", "v": None, "i": "i"}),
        (Answer(t=1, id="a", value=True), {"k": "answer", "t": 1, "id": "a", "v": True}),
        (Tick(), {"k": "tick"}),
        (Cancel(t=1, why="w"), {"k": "cancel", "t": 1, "why": "w"}),
        (
            Ask(id="a", key="k", kind="map", name="n", after=3, members=2),
            {"k": "ask", "id": "a", "key": "k", "kind": "map", "name": "n", "after": 3, "n": 2},
        ),
        (
            Ask(id="a", key="k", kind="ask", name="n", after=0, question="?", answer_schema={"type": "boolean"}),
            {
                "k": "ask",
                "id": "a",
                "key": "k",
                "kind": "ask",
                "name": "n",
                "after": 0,
                "q": "?",
                "schema": {"type": "boolean"},
            },
        ),
    ],
)
def test_the_spelling_is_what_the_scripts_write(entry: Entry, line: dict[str, Any]) -> None:
    assert json.loads(encode(entry)) == line
    assert decode(json.dumps(line)) == entry


@given(inputs | asks)
def test_an_entry_cannot_be_changed(entry: Entry) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(entry, "after" if isinstance(entry, Ask) else "t", 1)


def test_a_large_result_brings_no_value_along() -> None:
    entry = decode('{"k":"result","t":1,"id":"a","s":"ok","ref":1,"v":"cut"}')
    assert entry == Result(t=1, id="a", status="ok", large=True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"\xff{", "�{"),
        ("", "EOF"),
        ("[]", "list"),
        ("3", "int"),
        ("{}", "it lacks 'k'"),
        ('{"k":"joined","t":1}', "it lacks 'id'"),
        ('{"k":"new"}', '"new" is unknown'),
        ('{"k":"result","id":"a","s":"maybe"}', '"maybe" is unknown'),
        ('{"k":"ask","id":"a","key":"k","kind":"new","name":"n","after":0}', '"new" of ask is unknown'),
    ],
)
def test_an_entry_that_cannot_be_read_is_told(line: str | bytes, words: str) -> None:
    with pytest.raises(JournalUnreadable) as refused:
        decode(line)
    assert words in str(refused.value)


def test_a_long_entry_is_cut_in_the_message() -> None:
    with pytest.raises(JournalUnreadable) as refused:
        decode(json.dumps({"k": "new", "v": "x" * 10_000}))
    assert len(str(refused.value)) < 500
