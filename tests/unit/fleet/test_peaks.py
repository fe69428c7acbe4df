"""What a pool asked for of late, also where the clock goes back and where another goes on."""

from __future__ import annotations

from agentq.core.scaling import Asked
from agentq.core.sizing import KEPT_PEAKS
from agentq.fleet.peaks import Peaks


def peaks(*noted: tuple[int, int]) -> Peaks:
    made = Peaks()
    for at_ms, workers in noted:
        made.note(at_ms, workers)
    return made


def test_a_later_number_that_is_as_large_takes_the_place_of_those_before() -> None:
    assert peaks((1000, 3), (2000, 5), (3000, 2), (4000, 2)).within(5000, 60) == [Asked(3.0, 5), Asked(1.0, 2)]


def test_what_is_older_than_the_window_is_forgotten() -> None:
    made = peaks((1000, 5), (9000, 2))
    assert made.within(9000, 5) == [Asked(0.0, 2)]
    assert made.within(9000, 60) == [Asked(0.0, 2)]


def test_where_the_clock_goes_back_a_peak_is_held_for_one_window_and_no_longer() -> None:
    made = peaks((3_600_000, 8))
    assert made.within(1000, 5) == [Asked(0.0, 8)]
    made.note(1000, 1)
    assert made.within(7000, 5) == []


def test_time_in_which_nobody_looked_counts_to_no_window() -> None:
    made = peaks((1000, 5), (2000, 2))
    made.leave_out(100_000)
    assert made.within(100_000, 5) == [Asked(1.0, 5), Asked(0.0, 2)]


def test_another_goes_on_with_what_was_kept_and_with_no_less_where_it_is_much() -> None:
    other = Peaks()
    assert peaks().kept == ()
    other.take_over(peaks((1000, 5), (2000, 2)).kept, 3000)
    assert other.within(3000, 60) == [Asked(2.0, 5), Asked(1.0, 2)]
    many = peaks(*((1000 * at, 100 - at) for at in range(90)))
    assert len(many.kept) <= KEPT_PEAKS
    other = Peaks()
    other.take_over(many.kept, 90_000)
    for window in range(0, 90, 7):
        most = max((each.workers for each in peaks(*many._entries).within(90_000, window)), default=0)
        assert max((each.workers for each in other.within(90_000, 90) if each.ago_s <= window), default=0) >= most
