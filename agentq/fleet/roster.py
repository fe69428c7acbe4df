"""Which instances of the platform are which workers, and who of them is to go.

It compares what the platform has with what has enrolled. Pure: nothing is asked and nothing is done here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from agentq.fleet.drivers import Instance, Observed
from agentq.store.sensing import Glance, SeenWorker

BY_CONTROLLER: Final = "autoscale"
"""What a mark of draining says of who made it."""


@dataclass(frozen=True, slots=True)
class Post:
    """An instance with its workers."""

    instance: Instance
    workers: tuple[SeenWorker, ...]

    @property
    def is_draining(self) -> bool:
        """Whether a controller has told all of it to take nothing more."""
        return bool(self.workers) and all(_is_marked(each) for each in self.workers)

    @property
    def is_done(self) -> bool:
        """Whether it has heard of that and holds nothing: it may end."""
        return self.is_draining and all(each.rests and not each.held for each in self.workers)

    @property
    def is_resting(self) -> bool:
        """Whether it takes nothing for another reason: it is not well, or a person has drained it."""
        return bool(self.workers) and not self.is_draining and all(each.rests for each in self.workers)

    @property
    def held(self) -> int:
        """Messages in its custody."""
        return sum(each.held for each in self.workers)


@dataclass(frozen=True, slots=True)
class Roster:
    """Who is there of a pool.

    Attributes:
        ready: instances of ours that take work.
        starting: instances that have not enrolled yet.
        resting: instances that take nothing for now; they may come back.
        draining: those that take nothing more and go.
        leaving: those that the platform is ending.
        strangers: workers of the pool that are none of the platform's, and take work.
        unlisted, unlisted_starting, unlisted_resting: how many take, come and rest that the platform does not list.
    """

    ready: tuple[Post, ...] = ()
    starting: tuple[Instance, ...] = ()
    resting: tuple[Post, ...] = ()
    draining: tuple[Post, ...] = ()
    leaving: tuple[Post, ...] = ()
    strangers: int = 0
    unlisted: int = 0
    unlisted_starting: int = 0
    unlisted_resting: int = 0

    @property
    def taking(self) -> int:
        """Workers that take work."""
        return len(self.ready) + self.strangers + self.unlisted

    @property
    def coming(self) -> int:
        """Workers that were ordered and do not take yet."""
        return len(self.starting) + self.unlisted_starting

    @property
    def ours(self) -> int:
        """Instances that take or will; those that rest, drain or leave are not counted."""
        return len(self.ready) + self.unlisted + self.coming

    @property
    def instances(self) -> int:
        """All that the platform has."""
        listed = (self.ready, self.starting, self.resting, self.draining, self.leaving)
        return sum(map(len, listed)) + self.unlisted + self.unlisted_starting + self.unlisted_resting


def make_roster(observed: Observed, glance: Glance) -> Roster:
    """Who is who; of an observation with instances `glance` must have its workers listed."""
    if observed.instances is None:
        there = glance.workers + glance.resting
        coming = max(0, (observed.wanted if observed.wanted is not None else there) - there)
        return Roster(unlisted=glance.workers, unlisted_starting=coming, unlisted_resting=glance.resting)
    workers: dict[str, list[SeenWorker]] = {}
    for worker in glance.listed or ():
        workers.setdefault(worker.instance, []).append(worker)
    posts = [Post(each, tuple(workers.pop(each.name, ()))) for each in observed.instances]
    stays = [post for post in posts if not post.instance.is_leaving]
    return Roster(
        ready=tuple(post for post in stays if post.workers and not post.is_draining and not post.is_resting),
        starting=tuple(post.instance for post in stays if not post.workers),
        resting=tuple(post for post in stays if post.is_resting),
        draining=tuple(post for post in stays if post.is_draining),
        leaving=tuple(post for post in posts if post.instance.is_leaving),
        # What was ordered and is not listed yet.
        unlisted_starting=max(0, (observed.wanted if observed.wanted is not None else 0) - len(stays)),
        strangers=sum(not each.rests and not _is_marked(each) for others in workers.values() for each in others),
    )


def who_goes(roster: Roster, many: int) -> tuple[Post, ...]:
    """So many of those that are ready, at most: the idle first, then those that hold least, the youngest of equal ones.

    The youngest has the least that is worth keeping: models loaded, connections open.
    """
    ranked = sorted(roster.ready, key=lambda post: (post.held, post.instance.age_s))
    return tuple(ranked[: max(many, 0)])


def who_stays(roster: Roster, many: int) -> tuple[Post, ...]:
    """So many of those that drain, at most, that had best take work again: those that hold most."""
    ranked = sorted(roster.draining, key=lambda post: -post.held)
    return tuple(ranked[: max(many, 0)])


def startups(roster: Roster, awaited: Collection[str], now_ms: int) -> list[float]:
    """Seconds from the order of each awaited instance to its worker's enrolment, of those that have enrolled."""
    found = []
    for post in (*roster.ready, *roster.resting, *roster.draining):
        since = min((each.since_ms for each in post.workers if each.since_ms), default=0)
        if post.instance.name in awaited and since:
            found.append(max(0.0, post.instance.age_s - (now_ms - since) / 1000))
    return found


def workers_of(posts: Sequence[Post]) -> list[str]:
    """The ids of their workers."""
    return [worker.id for post in posts for worker in post.workers]


def _is_marked(worker: SeenWorker) -> bool:
    return worker.mark is not None and worker.mark.get("by") == BY_CONTROLLER
