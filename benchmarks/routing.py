"""What it costs to choose a pool for a call: ``python -m benchmarks.routing [POOLS] [CALLS]``.

Every pool meets the needs and has a worker and a queue, which is the dearest case. Measured are the rule alone, with
what is known of the pools in its hands, and all that a call does for it; and how often the server was asked meanwhile.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from agentq import AgentQ, Needs
from agentq.core.pools import Declared
from agentq.core.routes import NO_WISHES, Load, Outlook, Wishes, decide_route
from agentq.engine.options import CallOptions
from agentq.engine.routing import apply_route
from agentq.settings import Settings
from agentq.store.embedded import ensure_server

A100 = Needs(gpu="a100")
LONGEST_QUEUE = 3_000


def cost_us(call: Callable[[], Any], calls: int) -> tuple[float, float]:
    """Median and 95th percentile of one call, in microseconds."""
    took = []
    for _ in range(calls):
        begun = perf_counter_ns()
        call()
        took.append((perf_counter_ns() - begun) / 1000)
    return statistics.median(took), statistics.quantiles(took, n=20)[-1]


def app_with(pools: int, folder: Path) -> AgentQ:
    """An app with so many pools, each with a worker, on a private server."""
    url = ensure_server(folder / "state").url
    app = AgentQ("routing", settings=Settings.load(environ={"AGENTQ_REDIS_URL": url, "AGENTQ_ARCHIVE": "off"}))
    for number in range(pools):
        place = {"gpu": "a100", "region": "eu" if number % 2 else "us"}
        app.declare_pool(f"p{number}", tags=place, cost_per_hour=1 + number % 3)
        app.store.enroll(f"w{number}", label="w", queues=(f"p{number}",), concurrency=8, lease_ms=600_000)
    return app


def outlook_of(pools: Declared) -> Outlook:
    """All of them busy, with queues of any length."""
    loads = {
        name: Load(workers=1, slots=8, busy=8, waiting=(0, 3, random.randrange(LONGEST_QUEUE), 9), service_s=0.5)
        for name in pools
    }
    return Outlook(loads)


def scripts_called(app: AgentQ) -> int:
    """How often the server was asked to run a script, which is all that a call or a look asks of it."""
    called = app.store.client.info("commandstats").get("cmdstat_evalsha", {})
    return int(called.get("calls", 0))


def main(pools: int = 50, calls: int = 20_000) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory(prefix="agentq-bench-") as folder:
        app = app_with(pools, Path(folder))
        outlook = outlook_of(app.declared_pools)
        kinds = {
            "interactive": NO_WISHES,
            "prefer a region": Wishes(prefer=Needs(region="eu")),
            "batch": Wishes(tier="batch"),
            "deadline": Wishes(deadline_s=30),
        }
        print(f"{pools} pools that fit, {calls} calls; us median / 95 %")
        for name, wishes in kinds.items():

            def rule(wishes: Wishes = wishes) -> None:
                route = decide_route(app.declared_pools, step="s", call_needs=A100, wishes=wishes, outlook=outlook)
                outlook.note(route.queue)

            print(f"  the rule, {name:17} {'{:7.1f} / {:.1f}'.format(*cost_us(rule, calls))}")

        @app.step
        def step() -> None: ...

        call = CallOptions(needs=A100, deadline=timedelta(seconds=30))
        apply_route(step, call, {}, {})
        before = scripts_called(app)
        cost = cost_us(lambda: apply_route(step, call, {}, {}), calls)
        asked = scripts_called(app) - before
        print(f"  all of a call's choice      {'{:7.1f} / {:.1f}'.format(*cost)}")
        print(f"  asked of the server meanwhile: {asked} times, by the look in the background")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
