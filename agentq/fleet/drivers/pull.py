"""Nobody is told: the platform pulls the number that the controller has published, as KEDA and an HPA do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentq.fleet.drivers import Driver, Observed, Setup


class Pull:
    """A driver that does nothing; each living worker counts as an instance."""

    name = "pull"
    chooses = False
    acts = False

    def observe(self, pools: Sequence[str]) -> Mapping[str, Observed]:
        """What there is of each pool: nobody knows but the workers themselves."""
        return {pool: Observed(wanted=None) for pool in pools}

    def apply(self, pool: str, instances: int, *, fence: int) -> None:
        """Do nothing."""

    def drain(self, pool: str, names: Sequence[str], *, fence: int) -> None:
        """Do nothing."""

    def close(self, *, keep: bool) -> None:
        """Do nothing."""


def make(setup: Setup) -> Driver:
    """The driver."""
    return Pull()
