"""The class ``Store``: every script and every reader, put together."""

from agentq.store.admissions import AdmissionCalls
from agentq.store.forks import ForkCalls
from agentq.store.handback import HandbackCalls
from agentq.store.letters import LetterCalls
from agentq.store.losses import LossCalls
from agentq.store.past import Past
from agentq.store.scaling import ScalingCalls
from agentq.store.seasons import SeasonCalls
from agentq.store.sensing import SenseReads
from agentq.store.stranded import StrandedCalls
from agentq.store.unsent import UnsentCalls
from agentq.store.unserved import UnservedReads
from agentq.store.watched import WatchCalls
from agentq.store.workers import WorkerCalls


class Store(
    ForkCalls,
    WatchCalls,
    WorkerCalls,
    AdmissionCalls,
    UnsentCalls,
    HandbackCalls,
    LetterCalls,
    LossCalls,
    UnservedReads,
    StrandedCalls,
    ScalingCalls,
    SeasonCalls,
    SenseReads,
    Past,
):
    """One server and prefix, with a method for every script and the readers beside them."""
