"""Workers as processes of this machine, started and ended by the controller's own process.

They outlive it: each has a file in the driver's folder, by which the next controller on this machine knows it. So a
controller that is killed kills no step.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agentq.core.errors import DriverFailed, StoreUnavailable, Superseded
from agentq.core.policy import decide_restart_wait
from agentq.fleet.children import birth_of, die_with_parent, ending, send
from agentq.fleet.drivers import Instance, Observed, Setup

STEADY_S: Final = 60.0
"""A worker that lived so long did not die of its start."""

LOOK_S: Final = 10.0
"""Between two looks for workers that have not come up."""

LOG_BYTES: Final = 4_000_000
"""Of one worker's output so much is kept: one that runs for months would fill the disk with it."""

LEAVING_S: Final = 60.0
"""So long a worker that holds nothing may take to end after a SIGTERM; then it is killed."""

LOCK_S: Final = 1.0

TAIL_BYTES: Final = 4000


@dataclass
class Child:
    """One worker process, ours or an earlier controller's."""

    key: str
    pool: str
    name: str
    pid: int
    birth: str
    ordered_at: float
    """By the wall clock: an adopter has no other."""
    leaving_at: float | None = None
    process: subprocess.Popen[bytes] | None = None
    read_bytes: int = 0
    is_up: bool = False
    """Whether its worker was seen among the living."""
    is_missed: bool = False
    """Whether it was not among them at the last look, though it should have been."""

    def to_json(self) -> dict[str, Any]:
        """What its file says."""
        return {
            name: getattr(self, name) for name in ("key", "pool", "name", "pid", "birth", "ordered_at", "leaving_at")
        }

    @property
    def age_s(self) -> float:
        """Seconds since it was ordered."""
        return max(0.0, time.time() - self.ordered_at)

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        if self.process is not None:
            return self.process.poll() is None
        return birth_of(self.pid) == self.birth


@dataclass
class Deaths:
    """How a pool's workers have died of late."""

    row: int = 0
    until: float = 0.0
    words: str = ""


class Local:
    """The driver."""

    name = "local"
    chooses = True
    acts = True

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._folder = setup.folder
        self._host = socket.gethostname()
        self._children: dict[str, Child] = {}
        self._deaths: dict[str, Deaths] = {}
        self._looked_up = 0.0
        self._led: frozenset[str] = frozenset()
        self._once_led: frozenset[str] = frozenset()

    # -- the three words

    def observe(self, pools: Sequence[str]) -> Mapping[str, Observed]:
        """What runs on this machine, whoever has started it."""
        self._led = frozenset(pools)
        self._once_led |= self._led
        self._adopt()
        for child in list(self._children.values()):
            self._hear(child)
            if not child.is_alive:
                self._bury(child)
            elif child.leaving_at is not None and time.time() - child.leaving_at > LEAVING_S:
                self._setup.say(child.name, f"has not ended within {LEAVING_S:g} s: it is killed")
                send(child.pid, signal.SIGKILL)
        self._end_stuck()
        return {pool: Observed(None, self._instances(pool), self._trouble(pool)) for pool in pools}

    def apply(self, pool: str, instances: int, *, fence: int) -> None:
        """So many run, those that drain counted; none is ended here."""
        with self._fenced(pool, fence):
            self._adopt()
            there = sum(child.pool == pool and child.leaving_at is None for child in self._children.values())
            if time.monotonic() < self._of(pool).until:
                return
            for _ in range(there, instances):
                # Who was followed while it stood still starts one more at the most, and the leader sends that away.
                self._check(pool, fence)
                self._start(pool)

    def drain(self, pool: str, names: Sequence[str], *, fence: int) -> None:
        """These end; they hold nothing, so that a SIGTERM ends them at once."""
        with self._fenced(pool, fence):
            for child in self._children.values():
                if child.name in names and child.leaving_at is None:
                    child.leaving_at = time.time()
                    self._write(child)
                    send(child.pid, signal.SIGTERM)

    def close(self, *, keep: bool) -> None:
        """The controller ends; without `keep` the workers of the pools that it led end too, whoever started them.

        Those of other pools are another controller's, which may run on this machine as well.
        """
        mine = self._led | (self._once_led - self._setup.pools().keys())
        children = [child for child in self._children.values() if child.pool in mine]
        if keep or not children:
            return
        for child in children:
            # Whoever leads next must not count on them meanwhile.
            child.leaving_at = time.time()
            self._write(child)
            send(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + self._setup.grace_s
        while any(child.is_alive for child in children) and time.monotonic() < deadline:
            if self._setup.hurry.wait(0.05):
                break
        for child in children:
            if child.is_alive:
                send(child.pid, signal.SIGKILL, group=True)
            if child.process is not None:
                child.process.wait()
            self._hear(child)
            self._forget(child)

    # -- processes

    def _start(self, pool: str) -> None:
        key = uuid.uuid4().hex[:8]
        name = f"{self._host}/{pool}-{key}"
        argv, env = self._setup.command(pool, name)
        ordered_at = time.time()
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            process = self._spawn(argv, env, self._log(key))
        except OSError as error:
            raise DriverFailed(driver=self.name, pool=pool, reason=str(error)) from error
        child = Child(key, pool, name, process.pid, birth_of(process.pid) or "", ordered_at, process=process)
        self._children[key] = child
        self._write(child)

    def _spawn(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                list(argv),
                env=dict(env),
                stdin=subprocess.DEVNULL,
                # A file and no pipe: the worker goes on when nobody reads any more.
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=None if self._setup.outlives else die_with_parent,
            )

    def _adopt(self) -> None:
        """Know the workers that another controller on this machine has started."""
        for path in self._folder.glob("*.json"):
            if path.stem in self._children:
                continue
            try:
                child = Child(**json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError):
                continue  # being written, or of another version
            if child.name.partition("/")[0] != self._host:
                continue  # the folder is on a disk that several machines share
            if child.is_alive:
                self._children[child.key] = child
            else:
                self._forget(child)

    def _bury(self, child: Child) -> None:
        code = child.process.returncode if child.process is not None else None
        deaths = self._of(child.pool)
        if child.leaving_at is None:
            deaths.row = 1 if child.age_s >= STEADY_S else deaths.row + 1
            pause = decide_restart_wait(deaths.row).total_seconds()
            deaths.until = time.monotonic() + pause
            how = ending(code) if code is not None else "nobody saw how"
            deaths.words = f"its last worker ended after {child.age_s:.0f} s ({how}){self._last_words(child)}"
            self._setup.say(child.name, f"ended ({how}); another may start in {pause:.1f} s")
        elif child.age_s >= STEADY_S:
            deaths.row = 0
        self._forget(child)

    def _end_stuck(self) -> None:
        """Kill who has not enrolled in all the time that its pool allows; another takes its place.

        Only who is missed twice: after the server was away even those that run steps are not there at the first look.
        """
        coming = [each for each in self._children.values() if not each.is_up]
        if not coming or time.monotonic() - self._looked_up < LOOK_S:
            return
        self._looked_up = time.monotonic()
        try:
            up = {card.details.get("instance") for card in self._setup.store.workers()}
        except StoreUnavailable:
            for child in coming:
                child.is_missed = False
            return
        for child in coming:
            child.is_up = child.name in up
            is_late = not child.is_up and child.age_s > self._patience_s(child.pool)
            if is_late and child.is_missed and child.leaving_at is None:
                self._setup.say(child.name, f"has not come up in {child.age_s:.0f} s: it is killed")
                send(child.pid, signal.SIGKILL, group=True)
            child.is_missed = is_late

    def _patience_s(self, pool: str) -> float:
        spec = self._setup.pools().get(pool)
        return STEADY_S if spec is None else spec.startup_limit.total_seconds()

    def _instances(self, pool: str) -> tuple[Instance, ...]:
        mine = [child for child in self._children.values() if child.pool == pool]
        return tuple(Instance(child.name, child.age_s, child.leaving_at is not None) for child in mine)

    def _trouble(self, pool: str) -> str | None:
        deaths = self._deaths.get(pool)
        return deaths.words if deaths is not None and deaths.row and time.monotonic() < deaths.until + 1 else None

    def _of(self, pool: str) -> Deaths:
        return self._deaths.setdefault(pool, Deaths())

    # -- files

    def _write(self, child: Child) -> None:
        path = self._folder / f"{child.key}.json"
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(child.to_json()), encoding="utf-8")
        draft.replace(path)

    def _forget(self, child: Child) -> None:
        self._children.pop(child.key, None)
        for path in (self._folder / f"{child.key}.json", self._log(child.key)):
            path.unlink(missing_ok=True)

    def _log(self, key: str) -> Path:
        return self._folder / f"{key}.log"

    def _hear(self, child: Child) -> None:
        if self._setup.hear is not None:
            with contextlib.suppress(OSError), self._log(child.key).open("rb") as log:
                log.seek(child.read_bytes)
                text = log.read()
                whole = text.rpartition(b"\n")[0]
                if whole:
                    child.read_bytes += len(whole) + 1
                    for line in whole.split(b"\n"):
                        self._setup.hear(child.name, line.decode("utf-8", errors="replace").rstrip("\r"))
        with contextlib.suppress(OSError):
            if self._log(child.key).stat().st_size > LOG_BYTES:
                # The worker appends, so that it goes on at the new end.
                os.truncate(self._log(child.key), 0)
                child.read_bytes = 0

    def _last_words(self, child: Child) -> str:
        try:
            with self._log(child.key).open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
                lines = log.read().decode("utf-8", errors="replace").split("\n")
        except OSError:
            return ""
        said = [line.strip() for line in lines if line.strip()]
        return f": {said[-1][:200]}" if said else ""

    # -- the fence

    @contextlib.contextmanager
    def _fenced(self, pool: str, fence: int) -> Iterator[None]:
        """Have this controller's fence be the newest on this machine while the block runs; raises Superseded."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("a") as lock:
            deadline = time.monotonic() + LOCK_S
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    if time.monotonic() < deadline:
                        time.sleep(0.02)
                        continue
                    # Its holder stands still. It must not stop its successor: it compares the fence when it wakes.
                break
            self._check(pool, fence)
            if self._fences().get(pool, 0) < fence:
                draft = self._folder / f"fences.{os.getpid()}"
                draft.write_text(json.dumps({**self._fences(), pool: fence}), encoding="utf-8")
                draft.replace(self._folder / "fences")
            yield

    def _check(self, pool: str, fence: int) -> None:
        newest = self._fences().get(pool, 0)
        if newest > fence:
            raise Superseded(pool=pool, fence=fence, newest=newest)

    def _fences(self) -> dict[str, int]:
        try:
            found: dict[str, int] = json.loads((self._folder / "fences").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found


def make(setup: Setup) -> Local:
    """The driver."""
    return Local(setup)
