"""Every order of a few moves, on the real scripts: breadth-first, each state of server and clients seen once.

A state is kept as the server's own dump of its keys, so that any move can be tried from it. What times and histories
say is left out of what makes two states the same.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentq.core.errors import StaleHolder
from tests.store.bench import Bench, break_rule

_DUMP = """
local names = redis.call('KEYS', '*')
table.sort(names)
local found, told = {}, {}
for i, key in ipairs(names) do
  local dump = redis.call('DUMP', key)
  found[3 * i - 2], found[3 * i - 1], found[3 * i] = key, math.max(redis.call('PTTL', key), 0), dump
  if not string.match(key, ':events:') and not string.match(key, ':bell:') then told[#told + 1] = key .. dump end
end
return { redis.sha1hex(table.concat(told, ' ')), found }
"""

_RESTORE = """
redis.call('FLUSHALL')
for i = 1, #ARGV, 3 do redis.call('RESTORE', ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
"""

NOON = 1_700_000_000_000
"""The time at which all happens: two states that differ in times alone are one."""

_CLOCK = "return t[1] * 1000 + math.floor(t[2] / 1000)"

Image = list[Any]


class World(Protocol):
    """The clients of a search: what they know, what they may do next, what must hold."""

    path: list[str]

    def begin(self, bench: Bench) -> None:
        """Make the first state, on an empty server."""

    def moves(self) -> list[tuple[Any, ...]]:
        """Return what may happen next: names of methods with their arguments."""

    def known(self) -> Hashable:
        """Return what the clients know, as far as it matters for what may follow."""

    def check(self, bench: Bench) -> None:
        """Raise AssertionError if an invariant is broken."""


@dataclass
class Search:
    """Explores a world from its beginning.

    Attributes:
        states: how many different ones were seen.
        moves: how many moves were tried.
    """

    bench: Bench
    states: int = 0
    moves: int = 0
    seen: set[Hashable] = field(default_factory=set)

    def explore(self, first: World, *, drain_every: int = 1) -> None:
        """Try every order of moves; at every N-th end, bring all to its end and look for keys that stay.

        Raises AssertionError with the path to the first state that breaks an invariant.
        """
        client = self.bench.client
        break_rule(self.bench, _CLOCK, f"return {NOON}")
        setattr(self.bench.store, "now_ms", lambda: NOON)  # noqa: B010  # mypy knows that it is a method
        # The file would grow by each state, and nothing reads it.
        client.config_set("appendonly", "no")
        client.flushall()
        restore = client.register_script(_RESTORE)
        dump = client.register_script(_DUMP)
        first.begin(self.bench)
        waiting: deque[tuple[World, Image]] = deque([(first, dump()[1])])
        ends = 0
        while waiting:
            world, image = waiting.popleft()
            moves = world.moves()
            if not moves:
                ends += 1
                if ends % drain_every == 0:
                    restore(args=image)
                    self._checked(world, self._drain)
            for name, *arguments in moves:
                following = copy.deepcopy(world)
                following.path.append(f"{name}{tuple(arguments)}")
                restore(args=image)
                self.moves += 1
                self._checked(following, getattr(following, name), *arguments)
                digest, reached = dump()
                key = (following.known(), digest)
                if key not in self.seen:
                    self.seen.add(key)
                    self._checked(following, following.check)
                    waiting.append((following, reached))
        self.states = len(self.seen)

    def _checked(self, world: World, act: Callable[..., Any], *arguments: Any) -> None:
        try:
            act(self.bench, *arguments)
        except (AssertionError, StaleHolder) as error:
            # A worker of the clean-up may be the first to find that it does not own what it took.
            raise AssertionError(f"{error}\nafter {' '.join(world.path)}") from error

    def _drain(self, bench: Bench) -> None:
        bench.drain()
        # What is left of duplicates is dropped when somebody looks.
        bench.worker("last")
        assert bench.take("last", slots=100) == []
        bench.store.leave("last")
        left = bench.without_end("step", "log", "signals", "tree", "members", "join", "bits", "result", "message")
        assert left == [], f"without an end: {left}"
