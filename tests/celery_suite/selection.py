"""The part of the suite that CI runs: few tests, since each takes some two seconds, in which agentq once differed."""

from __future__ import annotations

from typing import Final

_TESTS: Final = {
    "test_tasks.py::test_tasks": (
        "test_ignore_result",
        "test_reject_without_requeue_stores_failure",
        "test_reject_with_requeue_redelivers_and_succeeds",
    ),
    "test_group_chains.py::test_group_chains": ("test_group_results_reach_the_next_group[True-True-True-1]",),
    "test_canvas.py::test_chain": ("test_complex_chain", "test_header_failure_fails_the_chords_after_it[1]"),
    "test_canvas.py::test_chord": (
        "test_reapplying_frozen_chord_dispatches_body_again",
        "test_parent_ids",
        "test_immutable_errback_called_by_chord_from_simple",
    ),
}

QUICK: Final = tuple(f"t/integration/{group}::{name}" for group, names in _TESTS.items() for name in names)
