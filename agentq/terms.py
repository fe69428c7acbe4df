"""What the parts are told of the settings, each in its own terms."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from agentq.core.guards import Budget
from agentq.core.prices import Prices, load_prices
from agentq.core.tenants import EVERYBODY, TenantSpec
from agentq.core.vitals import Thresholds
from agentq.core.zombies import NONE, Zombies
from agentq.engine.binding import Limits
from agentq.engine.health.monitor import HealthTerms
from agentq.engine.twins import is_of_a_step, is_told
from agentq.engine.watching import Watcher
from agentq.observability.sentry import Sentry
from agentq.settings import Settings
from agentq.store.runner import Weights


def weights_of(tenants: Mapping[str, TenantSpec]) -> Weights:
    """Return how many steps of each tenant go in a turn of it."""
    weights = {name: spec.weight for name, spec in tenants.items()}
    others = weights.pop(EVERYBODY, 1)
    return Weights(weights, others)


def prices_of(settings: Settings) -> Prices:
    """Return what models cost; nothing is known of any where no file is named."""
    return load_prices(settings.models_file) if settings.models_file is not None else Prices()


def tenant_budget_of(settings: Settings) -> Budget | None:
    """Return what each tenant may spend in a day; None where nothing bounds it."""
    given = Budget(
        usd=settings.tenant_day_usd,
        tokens=settings.tenant_day_tokens,
        per="tenant",
        on_exceeded=settings.tenant_day_exceeded,
    )
    return given if given.limits() else None


def watcher_of(settings: Settings) -> Watcher:
    """Return who hears of failures: Sentry where it is wished, else nobody."""
    if not settings.tells_sentry:
        return Watcher()
    dsn = settings.sentry_dsn.get_secret_value() if settings.sentry_dsn is not None else None
    return Sentry(dsn=dsn, is_of_a_step=is_of_a_step, is_told=is_told)


def zombies_of(settings: Settings) -> Zombies:
    """Return the rules by which runs that get nowhere are stopped."""
    given = {"repeats": settings.zombie_repeats, "cycles": settings.zombie_cycles, "tokens": settings.zombie_tokens}
    spans = {"quiet": settings.zombie_quiet, "wall": settings.zombie_wall}
    return NONE.model_copy(update={name: limit or None for name, limit in (given | spans).items()})


def health_of(settings: Settings) -> HealthTerms:
    """Return when a worker is ill, and how long it has to end."""
    grace = settings.stop_grace
    return HealthTerms(
        limits=Thresholds(
            delay_s=settings.unhealthy_delay.total_seconds() or None,
            errors=settings.unhealthy_errors if settings.unhealthy_errors < 1 else None,
            free_bytes=int(settings.unhealthy_memory) or None,
        ),
        stop_grace_s=grace.total_seconds() if isinstance(grace, timedelta) else None,
        every_s=min(1.0, settings.lease.total_seconds() / 3),
    )


def limits_of(settings: Settings) -> Limits:
    """Return the limits of steps and turns."""
    return Limits(
        step_s=settings.step_soft_limit.total_seconds(),
        grace_s=settings.step_hard_grace.total_seconds(),
        turn_s=settings.turn_limit.total_seconds(),
        linger_s=settings.linger.total_seconds(),
        low_share=settings.low_share,
        inline_bytes=settings.inline_limit,
        result_bytes=settings.result_limit,
        cache_bytes=settings.cache_limit,
        prefer_wait_s=settings.prefer_wait.total_seconds(),
        on_full=settings.on_full,
        full_wait_s=settings.full_wait.total_seconds(),
    )
