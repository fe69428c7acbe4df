"""Which of the two modes an app runs in: fused, where its broker and store are one Redis, or split."""

from __future__ import annotations

from typing import Final, Literal
from urllib.parse import urlsplit

from agentq.core.errors import InvalidSetting
from agentq.engine.versions import is_kombu_tried

Mode = Literal["fused", "split"]
"""What runs."""

Wanted = Literal["auto", "fused", "split", "stock"]
"""What may be asked for; ``stock`` is split mode over kombu's own transport, whatever the broker."""

REDIS_SCHEMES: Final = ("redis", "rediss", "redis+socket", "socket", "unix", "sentinel")
AMQP_SCHEMES: Final = ("amqp", "amqps", "pyamqp")


def is_redis(url: str) -> bool:
    """Tell whether a URL names a Redis server."""
    return urlsplit(url).scheme in REDIS_SCHEMES


def decide_mode(wanted: Wanted, broker_url: str | None) -> Mode:
    """Return the mode for a broker; None is the store's own server.

    Raises InvalidSetting for a broker that agentq cannot use, or cannot use as asked.
    """
    scheme = urlsplit(broker_url).scheme if broker_url else "redis"
    if scheme in REDIS_SCHEMES:
        if wanted == "split":
            raise InvalidSetting(
                name="transport",
                value=wanted,
                reason="split mode is for RabbitMQ; over Redis its name is stock, and fused needs no second mechanism",
            )
        return "split" if wanted == "stock" or (wanted == "auto" and not is_kombu_tried()) else "fused"
    if scheme not in AMQP_SCHEMES:
        raise InvalidSetting(
            name="broker_url",
            value=f"{scheme}://…",
            reason="agentq takes its messages from Redis or RabbitMQ: name a redis:// or an amqp:// URL",
        )
    if wanted == "fused":
        raise InvalidSetting(
            name="transport",
            value=wanted,
            reason=f"fused mode needs a Redis as broker, and this one is {scheme}://…: leave it out, or say split",
        )
    return "split"
