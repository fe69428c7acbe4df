"""What all workers count together: breakers."""

from __future__ import annotations

import hashlib

from agentq.store.connection import StoreConnection


class MeterCalls(StoreConnection):
    """The scripts of shared meters; names are users' text and enter keys as a hash."""

    def admit_breaker(self, name: str, *, reset_ms: int) -> int:
        """Return 0 when a call may go, else the ms until the breaker's next probe."""
        return int(self.run_script("breaker", "admit", _digest(name), reset_ms))

    def report_breaker(
        self, name: str, *, failed: bool, attempt: str, failures: int, window_ms: int, reset_ms: int
    ) -> bool:
        """Tell a breaker how a call went; return whether it is open now.

        ``failures`` within ``window_ms`` trip it; ``attempt`` names the call, so that a repeat counts once.
        """
        return bool(
            self.run_script("breaker", "report", _digest(name), reset_ms, int(failed), attempt, failures, window_ms)
        )


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]
