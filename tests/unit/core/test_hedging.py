"""When a second step begins beside a slow one: as users say it, and as records hold it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agentq.core.hedging import read_hedge


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (timedelta(seconds=2.5), "2500"),
        (timedelta(milliseconds=1), "1"),
        ("5s", "5000"),
        ("250ms", "250"),
        ("p95", "p95"),
        ("p50", "p50"),
        ("p99.9", "p99.9"),
        ("p90.0", "p90"),
    ],
)
def test_it_is_a_time_or_a_quantile(given: object, written: str) -> None:
    assert read_hedge(given) == written


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("p49", "between p50 and p99.9"),
        ("p100", "it is a time"),
        ("95", "quantile"),
        ("soon", "it is a time"),
        (5, "it is a time"),
        (True, "it is a time"),
        (timedelta(0), "at least a millisecond"),
        (timedelta(seconds=-1), "at least a millisecond"),
    ],
)
def test_what_it_cannot_be(given: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_hedge(given)
