"""``this_step``: what a step's function may say of itself while it runs; harmless outside a run."""

from __future__ import annotations

from contextvars import ContextVar
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from celery.utils.log import get_logger

from agentq.core.codec import dumps
from agentq.core.models import Usage
from agentq.core.prices import Prices
from agentq.engine.outcome import keep_trying

if TYPE_CHECKING:
    from agentq.engine.attempt import Attempt

logger = get_logger(__name__)


class InPlace:
    """A local call of an agent: the agent's attempt, with an id of the call's own."""

    def __init__(self, attempt: Attempt, step_id: str) -> None:
        self.holder = attempt.holder
        self.store = attempt.store
        self.request = attempt.request
        self.ours = attempt.ours
        self.binding = attempt.binding
        self.spent = attempt.spent
        self.run_id = attempt.holder.id
        self.step_id = step_id
        self.number = 1

    def tries(self) -> int:
        """Return the number of this try: it is made once."""
        return self.number


_unpriced: set[str] = set()


def priced(prices: Prices, usage: Usage) -> Usage:
    """Return a usage with what it costs by its model's price; as it is where no price or an amount is known."""
    if usage.usd or usage.model is None:
        return usage
    usd = prices.usd(usage.model, usage.tokens_in, usage.tokens_out)
    if usd is None:
        if prices.models and usage.model not in _unpriced:
            _unpriced.add(usage.model)
            logger.warning("price_unknown model=%s: it is counted as free; models.toml tells no price", usage.model)
        return usage
    return usage.model_copy(update={"usd": usd})


current_attempt: ContextVar[Attempt | InPlace | None] = ContextVar("agentq_attempt", default=None)


class ThisStep:
    """The step that runs in this context."""

    @property
    def idempotency_key(self) -> str:
        """Run id and step id, the same for every attempt: send it with calls that must not count twice.

        Outside a run it is the empty string.
        """
        attempt = current_attempt.get()
        return f"{attempt.holder.root}:{attempt.step_id}" if attempt is not None else ""

    @property
    def run_id(self) -> str | None:
        """The root run's id; None outside a run."""
        attempt = current_attempt.get()
        return attempt.holder.root if attempt is not None else None

    @property
    def step_id(self) -> str | None:
        """The step's id; None outside a run."""
        attempt = current_attempt.get()
        return attempt.step_id if attempt is not None else None

    @property
    def attempt(self) -> int:
        """Which try this is, 1 for the first; 1 outside a run."""
        attempt = current_attempt.get()
        return attempt.tries() if attempt is not None else 1

    def spend(
        self,
        *,
        tokens_in: int = 0,
        tokens_out: int = 0,
        usd: Decimal | float | None = None,
        model: str | None = None,
    ) -> None:
        """Add to what this attempt has used; settled with its commit, added up over the run's tree and its budgets.

        Without ``usd`` it costs what the prices in ``models.toml`` say of ``model``; nothing where they know none.
        """
        attempt = current_attempt.get()
        if attempt is None:
            return
        given = Decimal(0) if usd is None else Decimal(str(usd))
        used = Usage(tokens_in=tokens_in, tokens_out=tokens_out, usd=given, model=model)
        attempt.spent.append(used if usd is not None else priced(attempt.binding.prices, used))

    def emit(self, kind: str, /, **fields: Any) -> None:
        """Put a line into the run's history now, so that a follower sees a partial result.

        While the server is away it waits, as the step's commit would.
        """
        attempt = current_attempt.get()
        if attempt is None:
            return
        store, holder, token = attempt.store, attempt.holder, attempt.store.new_token()
        line = dumps({"e": "emit", "r": attempt.run_id, "s": attempt.step_id, "n": kind, "f": fields})
        keep_trying(lambda: store.emit(holder, [line], token=token))

    def heartbeat(self, note: str | None = None) -> None:
        """Say that the step makes progress; shown in its history."""
        if note is None:
            self.emit("heartbeat")
        else:
            self.emit("heartbeat", note=note)


this_step = ThisStep()
