"""Which accounts a step is charged to: they stand in its message's header, and every call below inherits them.

An account of a header has `k`, its name ('' the root run's, `self` that of the run that the message is, a run's id, or
`=` and a digest for what is summed up by the day), `l` or `b`, which limits it has, `x`, what happens at the limit, and
`nm`, how people call it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from agentq.core.guards import Budget

if TYPE_CHECKING:
    from agentq.engine.ending import Ending
    from agentq.engine.this_step import InPlace

ACCOUNTS: Final = "bg"
DEPTH: Final = "dp"

_OWN: Final = "self"
_ADMITTED: Final = frozenset({"tokens", "usd_micro", "attempts", "storage_bytes"})
"""Limits that a step is checked against right before it runs; the others are where it is sent."""

Account = dict[str, Any]


def run_limits(budgets: Sequence[Budget]) -> dict[str, int]:
    """Return the limits of the budget that is each run's own; empty where there is none."""
    return next((budget.limits() for budget in budgets if budget.per == "run"), {})


def own_accounts(budgets: Sequence[Budget], *, agent: str, tenant: str | None) -> list[Account]:
    """Return the accounts that a run of this agent opens for itself and all below it."""
    return [_account(budget, agent=agent, tenant=tenant) for budget in budgets if budget.limits()]


def tenant_account(budget: Budget, tenant: str) -> Account:
    """Return the account of all that a tenant has run on a day, whichever agent it is."""
    return _daily(budget, f"tenant\x00{tenant}", f"tenant {tenant}")


def _account(budget: Budget, *, agent: str, tenant: str | None) -> Account:
    if budget.per == "agent":
        return _daily(budget, f"agent\x00{agent}", f"agent {agent}")
    if budget.per == "tenant":
        return _daily(budget, f"agent\x00{agent}\x00{tenant or ''}", f"tenant {tenant or '(none)'} of agent {agent}")
    return _having({"k": _OWN, "l": sorted(budget.limits())}, budget)


def _daily(budget: Budget, name: str, words: str) -> Account:
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    return _having({"k": f"={digest}", "b": budget.limits(), "nm": f"{words} today"}, budget)


def _having(account: Account, budget: Budget) -> Account:
    return account if budget.on_exceeded == "refuse" else {**account, "x": budget.on_exceeded}


def limited(limits: Mapping[str, int]) -> list[Account]:
    """Return the account of a run with these limits alone, where the budget itself is not at hand."""
    return [{"k": _OWN, "l": sorted(limits)}] if limits else []


def accounts_of(attempt: Ending | InPlace) -> list[Account]:
    """Return the accounts that an attempt is charged to, its run's own by name."""
    listed = attempt.ours.get(ACCOUNTS)
    if not listed:
        return []
    own = "" if attempt.holder.id == attempt.holder.root else attempt.holder.id
    return [{**account, "k": own} if account["k"] == _OWN else account for account in listed]


def accounts_above(ours: Mapping[str, Any]) -> list[Account]:
    """Return the accounts on which the step of a header is counted itself: all but the one that it opens."""
    return [account for account in ours.get(ACCOUNTS) or [] if account["k"] != _OWN]


def inherited(attempt: Ending | InPlace | None) -> tuple[list[Account], int]:
    """Return the accounts of what is sent from within an attempt, and how deep it stands.

    What goes on behind a step (its chain, its callbacks) stands where the step does.
    """
    if attempt is None:
        return [], 0
    depth = int(attempt.ours.get(DEPTH, 0))
    if getattr(attempt, "sends_behind", False):
        return accounts_above(attempt.ours), depth
    return accounts_of(attempt), depth + 1


def needs_admission(accounts: Sequence[Account]) -> bool:
    """Tell whether a step with these accounts asks before it runs."""
    return any(_ADMITTED.intersection(account.get("l") or account.get("b") or ()) for account in accounts)


def counts_storage(accounts: Sequence[Account]) -> bool:
    """Tell whether the size of results is counted."""
    return any("storage_bytes" in (account.get("l") or account.get("b") or ()) for account in accounts)
