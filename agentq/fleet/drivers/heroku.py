"""Workers as dynos of a Heroku app: each pool is a process type, sized by the formation API.

Heroku chooses which dyno goes, so that a pool shrinks by its quantity alone. Who is chosen gets SIGTERM and half a
minute: its worker takes nothing more, ends what it can and hands the rest over (AGENTQ_STOP_GRACE).

Heroku keeps no fence: of two controllers the store alone keeps the older one away. It is asked right before each call.
API: https://devcenter.heroku.com/articles/platform-api-reference#formation
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import IO, Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from pydantic import SecretStr

from agentq.core.errors import DriverFailed, InvalidSetting
from agentq.fleet.drivers import Driver, Instance, Observed, Setup

API: Final = "https://api.heroku.com"

LOOK_S: Final = 5.0
"""How old a look may be. Two calls each, and an account has 4,500 an hour for all its uses."""

TIMEOUT_S: Final = 5.0
"""For a connection, and for each part of an answer."""

LONGEST_S: Final = 10.0
"""For all pages of a look: meanwhile nothing else of the controller goes on."""

_MOST_BYTES: Final = 16 << 20

_ACCEPT: Final = "application/vnd.heroku+json; version=3"
_PAGE: Final = "id ..; max=1000"
_RUNS: Final = frozenset({"up", "starting", "idle"})
_LEAVES: Final = frozenset({"down", "stopping"})


@dataclass(slots=True)
class _Look:
    """What there was at one moment: quantities by process type, and the dynos of each."""

    at: float
    quantities: dict[str, int]
    dynos: dict[str, list[Instance]] = field(default_factory=dict)
    crashed: dict[str, int] = field(default_factory=dict)


class Heroku:
    """The driver of one app.

    Args:
        app: its name or id.
        key: of an account that may scale it.
        target: the process type of a pool.
        api: where the platform is.
        clock: seconds, on any clock that does not jump.
    """

    name = "heroku"
    chooses = False
    acts = True

    def __init__(
        self,
        *,
        app: str,
        key: SecretStr,
        target: Callable[[str], str] = lambda pool: pool,
        api: str = API,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._app, self._key, self._target = app, key, target
        self._api, self._clock = api.rstrip("/"), clock
        self._seen: _Look | None = None
        self._opener: OpenerDirector = build_opener(_NoRedirect)

    def __repr__(self) -> str:
        return f"Heroku(app={self._app!r})"

    def observe(self, pools: Sequence[str]) -> Mapping[str, Observed]:
        """What there is of each pool, at most some seconds old."""
        look = self._look(next(iter(pools), ""))
        return {pool: self._observed(look, self._target(pool)) for pool in pools}

    def apply(self, pool: str, instances: int, *, fence: int) -> None:
        """The process type has this quantity; nothing is asked for where it has it already."""
        kind = self._target(pool)
        look = self._look(pool)
        if kind not in look.quantities:
            raise self._failed(pool, self._unknown(kind))
        if look.quantities[kind] == instances:
            return
        self._ask(pool, "PATCH", f"/formation/{quote(kind, safe='')}", {"quantity": instances})
        # The next look shows what came of it.
        self._seen = None

    def drain(self, pool: str, names: Sequence[str], *, fence: int) -> None:
        """Do nothing: which dyno goes is not ours to say."""

    def close(self, *, keep: bool) -> None:
        """Do nothing: dynos go on as they are."""

    def _look(self, pool: str) -> _Look:
        if self._seen is None or self._clock() - self._seen.at >= LOOK_S:
            until = self._clock() + LONGEST_S
            formation, _ = self._list(pool, "/formation", until)
            dynos, now = self._list(pool, "/dynos", until)
            try:
                self._seen = _look_of(self._clock(), formation, dynos, now)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise self._failed(pool, f"Heroku's answer is not what its API promises: {error!r}") from error
        return self._seen

    def _observed(self, look: _Look, kind: str) -> Observed:
        if kind not in look.quantities:
            return Observed(wanted=None, trouble=self._unknown(kind))
        crashed = look.crashed.get(kind, 0)
        return Observed(
            wanted=look.quantities[kind],
            instances=tuple(look.dynos.get(kind, ())),
            trouble=f"{crashed} dynos of {kind} have crashed: heroku logs --dyno {kind}" if crashed else None,
        )

    def _unknown(self, kind: str) -> str:
        return f'app "{self._app}" has no process type "{kind}": name it in the Procfile, or give the pool its `target`'

    def _list(self, pool: str, path: str, until: float) -> tuple[list[dict[str, Any]], datetime]:
        found: list[dict[str, Any]] = []
        page: str | None = _PAGE
        now = datetime.now(UTC)
        while page is not None:
            more, headers = self._ask(pool, "GET", path, page=page, until=until)
            if not isinstance(more, list):
                raise self._failed(pool, f"Heroku's answer is not what its API promises: GET {path} gives no list")
            found += more
            page = headers.get("Next-Range")
            # Ages by Heroku's own clock: this machine's may be wrong by minutes.
            now = _moment(headers.get("Date")) or now
        return found, now

    def _ask(
        self,
        pool: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        page: str | None = None,
        until: float | None = None,
    ) -> tuple[Any, Mapping[str, str]]:
        headers = {
            "Accept": _ACCEPT,
            "Authorization": f"Bearer {self._key.get_secret_value()}",
            "User-Agent": "agentq",
            **({"Range": page} if page is not None else {}),
            **({"Content-Type": "application/json"} if body is not None else {}),
        }
        payload = json.dumps(body).encode() if body is not None else None
        url = f"{self._api}/apps/{quote(self._app, safe='')}{path}"
        request = Request(url, data=payload, headers=headers, method=method)  # noqa: S310 — the address is Heroku's
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                text = self._read(pool, response, until if until is not None else self._clock() + LONGEST_S)
                return json.loads(text), response.headers
        except HTTPError as error:
            with error:
                raise self._failed(pool, self._refusal(error)) from error
        except (URLError, OSError, TimeoutError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise self._failed(pool, f"Heroku cannot be reached: {reason}") from error
        except ValueError as error:
            raise self._failed(pool, f"Heroku's answer to {method} {path} cannot be read") from error

    def _read(self, pool: str, response: Any, until: float) -> bytes:
        # One socket time-out for each part: a platform that sends a byte now and then would keep us for ever.
        text = b""
        while part := response.read1(65_536):
            text += part
            if len(text) > _MOST_BYTES:
                raise self._failed(pool, f"Heroku's answer has more than {_MOST_BYTES >> 20} MiB")
            if self._clock() > until:
                raise self._failed(pool, f"Heroku has not told everything within {LONGEST_S:g} s")
        return text

    def _refusal(self, error: HTTPError) -> str:
        said = _message(error)
        if error.code == 401:
            return "Heroku does not know the key (401): make one with `heroku authorizations:create`, as HEROKU_API_KEY"
        if error.code == 403:
            return f'the key may not scale app "{self._app}" (403): {said}'
        if error.code == 404:
            return f'there is no app "{self._app}" for this key (404): HEROKU_APP_NAME names it'
        if error.code == 429:
            return "Heroku's rate limit is used up (429), which all uses of the account share: it fills by 75 a minute"
        return f"Heroku refused ({error.code}): {said}"

    def _failed(self, pool: str, reason: str) -> DriverFailed:
        return DriverFailed(driver=self.name, pool=pool, reason=reason)


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        return None


def make(setup: Setup) -> Driver:
    """The driver of the app that HEROKU_APP_NAME names, with HEROKU_API_KEY; raises InvalidSetting without them."""
    app, key = os.environ.get("HEROKU_APP_NAME"), os.environ.get("HEROKU_API_KEY")
    for name, value, way in (
        ("HEROKU_APP_NAME", app, "the name of the app whose dynos are the workers"),
        ("HEROKU_API_KEY", key, "a key that may scale it, by `heroku authorizations:create`"),
    ):
        if not value:
            raise InvalidSetting(name="autoscale_driver", value="heroku", reason=f"{name} is not set: {way}")
    assert app is not None
    assert key is not None

    def target(pool: str) -> str:
        return setup.target(pool, "heroku")

    return Heroku(app=app, key=SecretStr(key), target=target)


def _look_of(at: float, formation: list[dict[str, Any]], dynos: list[dict[str, Any]], now: datetime) -> _Look:
    look = _Look(at, {each["type"]: int(each["quantity"]) for each in formation})
    for dyno in dynos:
        state, kind = dyno.get("state"), dyno["type"]
        if state in _RUNS or state in _LEAVES:
            instance = Instance(dyno["name"], _age_s(dyno.get("created_at"), now), state in _LEAVES)
            look.dynos.setdefault(kind, []).append(instance)
        elif state == "crashed":
            look.crashed[kind] = look.crashed.get(kind, 0) + 1
    return look


def _message(error: HTTPError) -> str:
    try:
        return str(json.load(error)["message"])
    except (ValueError, KeyError, TypeError, OSError):
        return str(error.reason)


def _moment(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None


def _age_s(created: str | None, now: datetime) -> float:
    try:
        made = datetime.fromisoformat(created) if created else now
    except ValueError:
        made = now
    return max(0.0, (now - made).total_seconds())
