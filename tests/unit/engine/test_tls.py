"""Celery's settings for TLS in the words of a URL."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from agentq.core.errors import InvalidSetting
from agentq.engine.tls import with_tls


@pytest.mark.parametrize(
    ("url", "options", "expected"),
    [
        ("redis://h/1", None, "redis://h/1"),
        ("redis://h/1", {}, "redis://h/1"),
        ("amqps://h//", {"ca_certs": "/ca"}, "amqps://h//"),
        ("redis://u:p%40@h:7/1", True, "rediss://u:p%40@h:7/1?ssl_cert_reqs=required"),
        ("rediss://h/1", {"ssl_cert_reqs": ssl.CERT_NONE}, "rediss://h/1?ssl_cert_reqs=none"),
        ("rediss://h/1", {"ssl_cert_reqs": 1}, "rediss://h/1?ssl_cert_reqs=optional"),
        (
            "rediss://h/1?ssl_cert_reqs=CERT_REQUIRED",
            {"ssl_cert_reqs": "none", "ssl_ca_certs": "/a b/ca", "ssl_check_hostname": False, "ssl_keyfile": None},
            "rediss://h/1?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs=/a%20b/ca&ssl_check_hostname=False",
        ),
    ],
)
def test_options_become_words_of_the_url(url: str, options: Any, expected: str) -> None:
    assert with_tls(url, options, setting="broker_use_ssl") == expected


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("redis+socket:///s", True, r"is redis\+socket://"),
        ("sentinel://h:1/0", {"ssl_cert_reqs": "none"}, "is sentinel://"),
        ("redis://h", "yes", "a dictionary"),
        ("redis://h", {"ssl_cert_reqs": 7}, "required, optional or none"),
        ("redis://h", {"ca_certs": "/ca"}, r"broker_use_ssl\['ca_certs'\].*begins with ssl_"),
        ("redis://h", {"ssl_context": object()}, "name files instead"),
    ],
)
def test_what_has_no_words_is_refused(url: str, options: Any, words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        with_tls(url, options, setting="broker_use_ssl")
