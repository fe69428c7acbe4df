"""Which pools a controller leads: its leases in the store, their fences, and for how long it may act by them.

It must not know what is decided of a pool, nor what has its workers started.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from time import monotonic

from agentq.fleet.control import PoolControl
from agentq.fleet.holding import held
from agentq.store import Store

logger = logging.getLogger(__name__)


class Leading:
    """The leases of one controller on the pools in ``controls``, which begin and end as it leads them.

    Args:
        lease_s: a leader that has not been heard of for so long is followed by another.
        is_dry: whether it takes no lease, and begins with all pools as if it led them.
        is_once: whether who begins goes on with what the last decision of the pool has seen.
    """

    def __init__(
        self, store: Store, controls: Mapping[str, PoolControl], *, lease_s: float, is_dry: bool, is_once: bool
    ) -> None:
        self.id = uuid.uuid4().hex
        self.label = f"{socket.gethostname()}:{os.getpid()}"
        self.leaders: dict[str, str] = {}
        """By pool that another leads, who does."""
        self._store = store
        self._controls = controls
        self._lease_s = lease_s
        self._is_dry, self._is_once = is_dry, is_once
        self._until = float("-inf")

    @property
    def led(self) -> list[PoolControl]:
        """The pools that it leads, as far as it knows."""
        return [control for control in self._controls.values() if control.is_led]

    def renew(self) -> None:
        """Keep the lease on what it leads, and take it on what nobody leads."""
        names = list(self._controls)
        if self._is_dry:
            new = [name for name in names if not self._controls[name].is_led]
            before = self._store.decisions() if new and self._is_once else {}
            for name in new:
                self._controls[name].begin(0, before.get(name), goes_on=self._is_once)
            return
        asked_at = monotonic()
        leads = self._store.lead(self.id, self.label, names, lease_ms=int(self._lease_s * 1000))
        self._until = asked_at + self._lease_s
        self.leaders = {name: lead.leader for name, lead in leads.items() if not lead.is_mine}
        fresh = [name for name, lead in leads.items() if lead.is_mine and self._is_fresh(name, lead.fence)]
        before = self._store.decisions() if fresh else {}
        for name, lead in leads.items():
            control = self._controls[name]
            if name in fresh:
                logger.info("pool_led pool=%s fence=%d", name, lead.fence)
                control.begin(lead.fence, before.get(name), goes_on=self._is_once)
            elif not lead.is_mine and control.is_led:
                logger.warning("pool_lost pool=%s leader=%s fence=%d", name, lead.leader, lead.fence)
                control.end()

    def make_sure(self) -> None:
        """The lease lasts long enough for one call of the driver; it is renewed where it does not."""
        if not self._is_dry and monotonic() > self._until - self._lease_s / 2:
            self.renew()

    def hold(self) -> AbstractContextManager[None]:
        """Go on leading while the driver is asked or told something, however long its platform takes."""
        fences = {control.spec.name: control.fence for control in self.led}
        if self._is_dry or not fences:
            return nullcontext()
        return held(lambda: self._prolong(fences), every_s=self._lease_s / 3)

    def give_back(self, names: Sequence[str]) -> dict[str, int]:
        """Lead these no more; gives the fence of each that was its own until now: others lead the rest already."""
        return {} if self._is_dry else self._store.yield_lead(self.id, names)

    def _is_fresh(self, name: str, fence: int) -> bool:
        control = self._controls[name]
        return not control.is_led or control.fence != fence

    def _prolong(self, fences: Mapping[str, int]) -> None:
        asked_at = monotonic()
        leads = self._store.lead(self.id, self.label, list(fences), lease_ms=int(self._lease_s * 1000))
        # Where another has led meanwhile, the next look at the lease is to tell.
        if all(lead.is_mine and lead.fence == fences[name] for name, lead in leads.items()):
            self._until = asked_at + self._lease_s
