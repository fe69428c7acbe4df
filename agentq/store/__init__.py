"""The protocol's state in one Redis: keys, scripts, readers, and the embedded server.

Names nothing of Celery. Every write may be repeated; what must be one instant is one script.
"""

from agentq.store.logs import LogCalls
from agentq.store.meters import MeterCalls
from agentq.store.past import Past
from agentq.store.unsent import UnsentCalls
from agentq.store.workers import WorkerCalls


class Store(LogCalls, WorkerCalls, MeterCalls, UnsentCalls, Past):
    """One server and prefix, with a method for every script and the readers beside them."""


__all__ = ["Store"]
