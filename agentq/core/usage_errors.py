"""The errors that mean: fix the code or the configuration. Import them from `errors`."""

from collections.abc import Iterable, Mapping

from agentq.core.error_base import ABSENT, UsageError, ended, listed, near, shown


class InvalidArguments(UsageError):
    """A call does not fit the step or agent; nothing was sent. `value` is its repr, cut."""

    code = "invalid_arguments"
    step: str
    parameter: str
    value: str | None
    reason: str

    def __init__(self, *, step: str, parameter: str, value: object = ABSENT, reason: str) -> None:
        self._fill(step=step, parameter=parameter, value=shown(value), reason=reason)

    def describe(self) -> str:
        given = "" if self.value is None else f" (given: {self.value})"
        return f'Argument "{self.parameter}" of "{self.step}" is wrong: {self.reason}{given}.'


class InvalidResult(UsageError):
    """A step or agent returned what its return hint does not allow, or what JSON cannot hold."""

    code = "invalid_result"
    step: str
    value: str | None
    reason: str

    def __init__(self, *, step: str, value: object, reason: str) -> None:
        self._fill(step=step, value=shown(value), reason=reason)

    def describe(self) -> str:
        return (
            f'The result of "{self.step}" is wrong: {self.reason} (returned: {self.value}). '
            "Return what the hint says, or correct the hint."
        )


class InvalidSetting(UsageError):
    """A setting is unknown, or its value cannot be used. `source` is where it stands."""

    code = "invalid_setting"
    name: str
    value: str | None
    reason: str
    source: str | None

    def __init__(self, *, name: str, value: object = ABSENT, reason: str, source: str | None = None) -> None:
        self._fill(name=name, value=shown(value), reason=reason, source=source)

    def describe(self) -> str:
        place = f"{self.source}: " if self.source else ""
        given = "" if self.value is None else f" (given: {self.value})"
        return ended(f"{place}Setting {self.name} is wrong: {self.reason}{given}")


class InvalidFile(UsageError):
    """A configuration file cannot be used. `line` counts from 1; None where no single line is at fault."""

    code = "invalid_file"
    file: str
    line: int | None
    reason: str

    def __init__(self, *, file: str, line: int | None = None, reason: str) -> None:
        self._fill(file=file, line=line, reason=reason)

    def describe(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.reason}"


class UnknownAgent(UsageError):
    """No agent of that name is in this application, and no worker has announced one."""

    code = "unknown_agent"
    name: str
    known: list[str]

    def __init__(self, *, name: str, known: Iterable[str]) -> None:
        self._fill(name=name, known=sorted(known))

    def describe(self) -> str:
        return (
            f'No agent is called "{self.name}".{near(self.name, self.known)} Known: {listed(self.known)}. '
            "An agent of another application is known once one of its workers has started."
        )


class UnknownPool(UsageError):
    """No pool of that name is declared."""

    code = "unknown_pool"
    name: str
    known: list[str]

    def __init__(self, *, name: str, known: Iterable[str]) -> None:
        self._fill(name=name, known=sorted(known))

    def describe(self) -> str:
        return (
            f'No pool is called "{self.name}".{near(self.name, self.known)} Declared: {listed(self.known)}. '
            "Pools are declared in the pools file (AGENTQ_POOLS_FILE)."
        )


class NoPoolFor(UsageError):
    """No declared pool meets the needs; with `pool`, that pool was asked for and its tags contradict them."""

    code = "no_pool_for"
    step: str
    needs: dict[str, str]
    pools: dict[str, dict[str, str]]
    pool: str | None

    def __init__(
        self,
        *,
        step: str,
        needs: Mapping[str, str],
        pools: Mapping[str, Mapping[str, str]],
        pool: str | None = None,
    ) -> None:
        self._fill(step=step, needs=needs, pools=pools, pool=pool)

    def describe(self) -> str:
        needs = ", ".join(f"{name}={value}" for name, value in self.needs.items())
        declared = "; ".join(f'"{name}" {tags or "without tags"}' for name, tags in self.pools.items())
        what = f'Pool "{self.pool}" cannot serve' if self.pool else "No declared pool serves"
        return (
            f'{what} step "{self.step}", which needs {needs}. Declared: {declared or "none"}. '
            "Declare a pool with these tags, or change pool= or needs=."
        )


class DevicesMissing(UsageError):
    """A worker's machine lacks the devices that its pool's tags declare."""

    code = "devices_missing"
    pool: str
    tags: dict[str, str]
    found: list[str]
    reason: str

    def __init__(self, *, pool: str, tags: Mapping[str, str], found: Iterable[str] = (), reason: str = "") -> None:
        self._fill(pool=pool, tags=dict(tags), found=list(found), reason=reason)

    def describe(self) -> str:
        if not self.tags:
            return f"One worker cannot serve the pools {self.pool}: {self.reason}."
        wanted = ", ".join(f"{name}={value}" for name, value in self.tags.items())
        there = ", ".join(self.found) or "no device"
        why = f"; {self.reason}" if self.reason else ""
        return ended(
            f'No device here is what pool "{self.pool}" declares ({wanted}); this worker may use: {there}{why}. '
            "Start it on a machine that has one, name the pools that this worker shall serve (agentq worker --pool "
            "NAME, celery worker -Q NAME), or correct the pool's tags"
        )


class DeviceTaken(UsageError):
    """CUDA was used in a worker's main process before its children were made, which then cannot use it."""

    code = "device_taken"
    pool: str

    def __init__(self, *, pool: str) -> None:
        self._fill(pool=pool)

    def describe(self) -> str:
        return (
            f'The worker of pool "{self.pool}" has used CUDA while it imported the application, so that its child '
            "processes cannot: load what needs a device in an @app.resource, not at import."
        )


class KeyReused(UsageError):
    """The start key stands for a run that was started with other arguments."""

    code = "key_reused"
    key: str
    run_id: str

    def __init__(self, *, key: str, run_id: str) -> None:
        self._fill(key=key, run_id=run_id)

    def describe(self) -> str:
        return (
            f'Key "{self.key}" belongs to run {self.run_id}, which was started with other arguments. '
            "Use another key, or the same arguments to get that run."
        )


class NotInRun(UsageError):
    """What needs a run was used where none is."""

    code = "not_in_run"
    what: str

    def __init__(self, *, what: str) -> None:
        self._fill(what=what)

    def describe(self) -> str:
        return (
            f"{self.what} works only inside a run. Call it from an agent or a step that a worker executes, "
            "or use agentq.testing.run_here in a test."
        )
