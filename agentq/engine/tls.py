"""Celery's settings for TLS, ``broker_use_ssl`` and ``redis_backend_use_ssl``, put into the words of a Redis URL.

The broker's connections, the results' and the records' own are then made by the same words.
"""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

from celery import Celery

from agentq.core.errors import InvalidSetting
from agentq.engine.mode import is_redis

STRICTNESS = {ssl.CERT_REQUIRED: "required", ssl.CERT_OPTIONAL: "optional", ssl.CERT_NONE: "none"}
"""How strictly a server's certificate is checked, in redis-py's words, which Celery knows too."""

TLS_SCHEMES = ("redis", "rediss")


def tls_named(app: Celery, name: str) -> Any:
    """Return what the app's configuration says under ``name``; None when nothing."""
    return app.conf.get(name) if app.configured else app._preconf.get(name)


def with_tls(url: str, options: Any, *, setting: str) -> str:
    """Return a Redis URL with the TLS options of a Celery setting in it; what the URL says itself goes before.

    Raises InvalidSetting for options that have no words in a URL, and for a URL that cannot have any.
    """
    if not options or not is_redis(url):
        return url
    parts = urlsplit(url)
    if parts.scheme not in TLS_SCHEMES:
        raise InvalidSetting(
            name=setting,
            value=options,
            reason=f"TLS is for redis:// and rediss:// URLs, and this one is {parts.scheme}://…: leave the setting out",
        )
    if options is True:
        options = {}
    if not isinstance(options, dict):
        raise InvalidSetting(name=setting, value=options, reason="it must be a dictionary, as in Celery, or true")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    words = {"ssl_cert_reqs": "required"}
    words.update({option: _word(setting, option, value) for option, value in options.items() if value is not None})
    query = "&".join(f"{option}={quote(value, safe='/')}" for option, value in {**words, **given}.items())
    return urlunsplit(("rediss", parts.netloc, parts.path, query, ""))


def _word(setting: str, option: str, value: Any) -> str:
    if option == "ssl_cert_reqs" and not isinstance(value, str):
        try:
            return STRICTNESS[ssl.VerifyMode(value)]
        except ValueError as error:
            raise InvalidSetting(
                name=f"{setting}[{option!r}]", value=value, reason="say required, optional or none"
            ) from error
    if not option.startswith("ssl_"):
        raise InvalidSetting(
            name=f"{setting}[{option!r}]",
            value=value,
            reason="an option for TLS to Redis begins with ssl_, as ssl_ca_certs does",
        )
    if not isinstance(value, str | bool | int):
        raise InvalidSetting(
            name=f"{setting}[{option!r}]",
            value=type(value).__name__,
            reason="agentq opens connections of its own by the URL, in which this has no words: name files instead",
        )
    return str(value)
