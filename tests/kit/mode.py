"""The modes in which tests run workers: fused, split over RabbitMQ, stock."""

from __future__ import annotations

from tests.kit.broker import PrivateBroker

MODES = ("fused", "split", "stock")


def settings_of(mode: str, broker: PrivateBroker | None = None) -> dict[str, str]:
    """Return the settings of a mode; ``broker`` is the one of split mode."""
    if mode == "fused":
        return {}
    # Soon, since tests lose messages on purpose.
    again = {"AGENTQ_REQUEUE_AFTER": "1s"}
    if mode == "stock":
        return {**again, "AGENTQ_TRANSPORT": "stock"}
    assert broker is not None, "split mode needs a broker"
    return {**again, "AGENTQ_BROKER_URL": broker.url}
