"""Worker processes as command lines: one stock Celery worker for pools of one kind.

Owns the translation of a pool's specification into Celery's options.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from agentq.cli.errors import CommandRefused
from agentq.cli.locate import AppSource
from agentq.core.devices import is_gpu_pool

if TYPE_CHECKING:
    from agentq.app import AgentQ
    from agentq.core.pools import PoolSpec

HASH_SEED = "0"
"""Agents replay: an order that comes from a set of strings must be the same in every process."""
THREADS_AT_LEAST = 32
"""Slots of a thread pool of automatic size: its steps wait for I/O, so cores are no measure."""

HARD_GRACE_SECONDS = 30
"""From the soft limit of an attempt, which it may handle, to the hard one, which ends its process."""


@dataclass(frozen=True)
class WorkerPlan:
    """One worker process to start."""

    pools: tuple[str, ...]
    kind: str
    concurrency: int
    """Slots: child processes or threads."""
    time_limit: timedelta | None = None
    """Of one attempt, for steps that set none; `None` for the application's own."""
    hard_time_limit: timedelta | None = None
    """`None` for a grace after the soft one."""
    max_tasks_per_child: int | None = None
    least: int | None = None
    """Of a prefork worker that grows and shrinks by its queues: it has so many slots at least."""

    @property
    def name(self) -> str:
        """What the worker is called in logs."""
        return "+".join(self.pools)


def plan_workers(
    specs: Mapping[str, PoolSpec],
    names: Iterable[str],
    *,
    concurrency: int | None = None,
    together: bool = False,
) -> list[WorkerPlan]:
    """The workers that serve the pools named: one per pool, or with `together` one for all that are alike."""
    chosen = [_spec(specs, name) for name in dict.fromkeys(names)]
    if not together:
        return [_plan([spec], concurrency) for spec in chosen]
    alike: dict[tuple[object, ...], list[PoolSpec]] = {}
    for spec in chosen:
        # A device belongs to the steps that need it: a pool with a GPU has workers of its own.
        own = spec.name if is_gpu_pool(spec.tags) else None
        key = (spec.kind, spec.time_limit, spec.hard_time_limit, spec.max_tasks_per_child, own)
        alike.setdefault(key, []).append(spec)
    return [_plan(specs_of_one, concurrency) for specs_of_one in alike.values()]


def _plan(alike: Sequence[PoolSpec], concurrency: int | None) -> WorkerPlan:
    # One more for each pool that shares the worker: an agent that lingers must not take the place of steps.
    slots = concurrency or max(_slots(spec) for spec in alike) + len(alike) - 1
    first = alike[0]
    return WorkerPlan(
        tuple(spec.name for spec in alike),
        first.kind,
        slots,
        first.time_limit,
        first.hard_time_limit,
        first.max_tasks_per_child,
    )


def plan_one_worker(specs: Mapping[str, PoolSpec], names: Sequence[str], *, concurrency: int | None) -> WorkerPlan:
    """One worker for all the pools named; refused if they are not alike."""
    plans = plan_workers(specs, names, concurrency=concurrency, together=True)
    if len(plans) > 1:
        words = "; ".join(f"{', '.join(plan.pools)}: {_kind_words(plan)}" for plan in plans)
        raise CommandRefused(
            f"One worker serves pools of one kind, with the same limits, and these differ ({words}). "
            "Start one worker for each, and for each pool with GPUs."
        )
    return plans[0]


def _kind_words(plan: WorkerPlan) -> str:
    words = [plan.kind]
    if plan.time_limit is not None:
        words.append(f"time limit {plan.time_limit.total_seconds():g} s")
    if plan.hard_time_limit is not None:
        words.append(f"hard {plan.hard_time_limit.total_seconds():g} s")
    if plan.max_tasks_per_child is not None:
        words.append(f"{plan.max_tasks_per_child} tasks a child")
    return ", ".join(words)


def check_installed(plan: WorkerPlan) -> None:
    """Return if this machine has what the pool's kind needs; refused with what to install."""
    if plan.kind == "gevent" and importlib.util.find_spec("gevent") is None:
        raise CommandRefused(
            f"Pool {plan.name} is of kind gevent, and gevent is not installed here: pip install gevent, or take "
            "threads."
        )


def _spec(specs: Mapping[str, PoolSpec], name: str) -> PoolSpec:
    if name not in specs:
        from agentq.core.errors import UnknownPool

        raise UnknownPool(name=name, known=specs)
    return specs[name]


def _slots(spec: PoolSpec) -> int:
    if isinstance(spec.concurrency, int):
        return spec.concurrency
    cores = os.cpu_count() or 1
    waiting = max(THREADS_AT_LEAST, 4 * cores)
    return {"solo": 1, "threads": waiting, "gevent": waiting}.get(spec.kind, cores)


def with_devices(
    app: AgentQ, names: Iterable[str], *, declared: Mapping[str, PoolSpec] | None = None
) -> dict[str, PoolSpec]:
    """The application's pools, or those that are declared now; of those named that have GPUs, as many slots as devices.

    Raises DevicesMissing when the machine lacks what one of them declares.
    """
    pools = dict(app.pools) | dict(declared or {})
    for name in names:
        spec = pools.get(name)
        if spec is not None and is_gpu_pool(spec.tags):
            outfit = app.outfit_for([name])
            if outfit is not None and spec.concurrency == "auto" and spec.kind != "solo":
                pools[name] = spec.model_copy(update={"concurrency": len(outfit.devices) * (spec.slots_per_gpu or 1)})
    return pools


def servable(app: AgentQ, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Those of the pools that this machine has the GPUs for, and a sentence for each that it has not."""
    from agentq.core.errors import DevicesMissing

    good, words = [], []
    for name in names:
        try:
            with_devices(app, [name])
        except DevicesMissing as error:
            words.append(f"No worker for pool {name}: {error}")
        else:
            good.append(name)
    return good, words


def new_label(plan: WorkerPlan) -> str:
    """A name for a worker, without its machine's, that no other worker has."""
    return f"{plan.pools[0]}-{uuid.uuid4().hex[:6]}"


def worker_argv(
    plan: WorkerPlan,
    celery_spec: str,
    *,
    label: str | None = None,
    log_level: str = "INFO",
    banner: bool = False,
    events: bool = False,
) -> list[str]:
    """The command line of a stock Celery worker, by the label given, else by one that no other worker has.

    `events`: it sends Celery's task events from its start, for a Flower that is known to listen.
    Gossip and mingle are off: they cost a second at the start, and nothing here relies on them.
    """
    quiet = [] if banner else ["--quiet"]
    soft = None if plan.time_limit is None else plan.time_limit.total_seconds()
    limits = [] if soft is None else [f"--soft-time-limit={soft:g}", f"--time-limit={_hard_seconds(plan, soft):g}"]
    if plan.max_tasks_per_child is not None:
        limits.append(f"--max-tasks-per-child={plan.max_tasks_per_child}")
    if plan.least is not None:
        limits.append(f"--autoscale={plan.concurrency},{plan.least}")
    return [
        sys.executable,
        "-m",
        "celery",
        *quiet,
        "-A",
        celery_spec,
        "worker",
        "--queues",
        ",".join(plan.pools),
        "--pool",
        plan.kind,
        "--concurrency",
        str(plan.concurrency),
        "--hostname",
        f"{label or new_label(plan)}@%h",
        "--without-gossip",
        "--without-mingle",
        "--loglevel",
        log_level,
        *(["--task-events"] if events else []),
        *limits,
    ]


def _hard_seconds(plan: WorkerPlan, soft: float) -> float:
    return soft + HARD_GRACE_SECONDS if plan.hard_time_limit is None else plan.hard_time_limit.total_seconds()


def child_environment(source: AppSource) -> dict[str, str]:
    """This process's environment, with the application importable and the hash seed fixed."""
    env = dict(os.environ)
    paths = [str(source.root), os.getcwd(), *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    env["PYTHONHASHSEED"] = HASH_SEED
    env["AGENTQ_APP"] = source.spec
    # torch.cuda.is_available() at import would else use CUDA in the main process, which its children then cannot.
    env.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    return env
