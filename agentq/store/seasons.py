"""What each pool had in each hour of the week, as its controllers have kept it, and what a backtest found of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from agentq.store.connection import StoreConnection

if TYPE_CHECKING:
    # Every worker opens a store, and few processes look at seasons.
    from agentq.core.seasons import Hour, Verdict

KEPT_MS: Final = 9 * 7 * 24 * 3600 * 1000
"""Nine weeks after its last change: some more than an hour's record looks back."""

_VERDICT: Final = b"verdict"


class HourSums(NamedTuple):
    """What a pool's leader has seen of one hour so far, in `seen_ms` of it: `hour` is that of the week."""

    pool: str
    fence: int
    week: int
    hour: int
    arrivals: int
    busy_ms: int
    seen_ms: int


class SeasonCalls(StoreConnection):
    """The script that keeps hours, and what is read of them."""

    def keep_hours(self, controller: str, hours: Sequence[HourSums]) -> dict[str, bool]:
        """Keep what is known of these hours by now; by pool, whether the controller leads it and it was written."""
        from agentq.core.seasons import WEEKS_KEPT

        if not hours:
            return {}
        arguments = [part for each in hours for part in each]
        # Beside the weeks that count there is the one that is under way.
        found = self.run_script("season", controller, KEPT_MS, WEEKS_KEPT + 1, *arguments)
        return {each.pool: int(done) == 1 for each, done in zip(hours, found, strict=True)}

    def seasons(self, pools: Sequence[str]) -> dict[str, tuple[dict[int, list[Hour]], Verdict | None]]:
        """Return what each pool had by hour of the week, and what its last backtest found, None without one."""

        def read() -> list[Mapping[bytes, bytes]]:
            pipeline = self.client.pipeline(transaction=False)
            for pool in pools:
                pipeline.hgetall(self.keys.of("seasons", pool))
            found: list[Mapping[bytes, bytes]] = pipeline.execute()
            return found

        found = self.guarded(read) if pools else []
        return {
            pool: (_record(fields), _verdict(fields.get(_VERDICT))) for pool, fields in zip(pools, found, strict=True)
        }

    def keep_verdict(self, pool: str, verdict: Verdict) -> None:
        """Keep what a backtest has found of the pool, in place of what was found before."""
        key = self.keys.of("seasons", pool)

        def write() -> Any:
            return self.client.pipeline().hset(key, _VERDICT, verdict.model_dump_json()).pexpire(key, KEPT_MS).execute()

        self.guarded(write)


def _record(fields: Mapping[bytes, bytes]) -> dict[int, list[Hour]]:
    return {int(hour): _hours(said.decode()) for hour, said in fields.items() if hour != _VERDICT}


def _hours(said: str) -> list[Hour]:
    from agentq.core.seasons import Hour

    found = []
    for entry in said.split():
        week, _, *sums = map(int, entry.split(":"))
        steps, busy_ms, seen_ms = (now + before for now, before in zip(sums[:3], sums[3:], strict=True))
        found.append(Hour(week, steps, busy_ms / 1000, seen_ms / 1000))
    return found


def _verdict(said: bytes | None) -> Verdict | None:
    from pydantic import ValidationError

    from agentq.core.seasons import Verdict

    if said is None:
        return None
    try:
        return Verdict.model_validate_json(said)
    except ValidationError:
        # A later version wrote it: a new backtest says it again.
        return None
