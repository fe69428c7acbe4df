"""What must hold after a round of faults, seen from outside: in the history, in the records, and on the wire."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

from tests.kit.leaks import leaked_keys
from tests.kit.proxy import Call
from tests.store.snapshot import Snapshot


class Witness:
    """Notes every commit that the server has accepted, by the replies on the wire."""

    def __init__(self) -> None:
        self._ends: defaultdict[tuple[str, str], set[tuple[str, int]]] = defaultdict(set)

    def __call__(self, call: Call, reply: bytes) -> None:
        """Hear of a call and its reply."""
        if call.name == "commit" and reply.startswith((b"*1\r\n:1\r\n", b"*1\r\n:3\r\n")):
            header = json.loads(call.arguments[0])
            if header["mode"] == "done":
                self._ends[header["root"], header["id"]].add((header["worker"], header["take"]))

    def problems(self) -> list[str]:
        """Return the steps that two attempts have ended."""
        return [f"{step} of {root} was ended by {who}" for (root, step), who in self._ends.items() if len(who) > 1]


class Inspector:
    """Looks now and then whether more goes on than a limit allows."""

    def __init__(self) -> None:
        self._over: set[str] = set()
        self.most: Counter[str] = Counter()

    def look(self, store: Any) -> None:
        """Look once; Unavailable while the server is away."""
        for gate in store.gates():
            used = {"in flight": (gate.in_flight, gate.slots), "requests": (gate.requests, gate.requests_limit)}
            used["tokens"] = (gate.tokens, gate.tokens_limit)
            for what, (now, limit) in used.items():
                if limit is not None:
                    name = f"{what} in {gate.name} of {limit}"
                    self.most[name] = max(self.most[name], now or 0)
                if limit is not None and (now or 0) > limit:
                    self._over.add(f"{gate.kind} {gate.name} had {now} {what} of {limit}")

    def problems(self) -> list[str]:
        """Return the limits that were exceeded."""
        return sorted(self._over)


def problems_of(app: Any, client: Any) -> list[str]:
    """Return what is wrong with what the server holds once every run has ended."""
    found = Snapshot.of(client, app.store.keys)
    queue = app.conf.task_default_queue
    problems = found.misplaced([queue], duplicates=True)
    for (root, step_id), record in found.records().items():
        if record["s"] != "d":
            problems.append(f"step {step_id} ({record.get('nm')}) of {root} is {record['s']} at the end")
    for root, join_id in found.parts("join"):
        problems += _join(found, root, join_id)
    for (root,) in found.parts("events"):
        problems += _history(found, root)
    problems += _reserved(found)
    return problems + [f"{key} has no end" for key in leaked_keys(client)]


def _join(found: Snapshot, root: str, join_id: str) -> list[str]:
    record = found.values[found.keys.join(root, join_id)]
    problems = []
    if record["sent"] != "1":
        problems.append(f"join {join_id} of {root} was not released: {record}")
    if int(record["n"]) > int(record["size"]) or int(record["ok"]) > int(record["n"]):
        problems.append(f"join {join_id} of {root} counted a member twice: {record}")
    return problems


def _reserved(found: Snapshot) -> list[str]:
    """Return what is still reserved, and who still waits for it."""
    held = {"gate": ("o", "ot", "pn"), "tree": ("r_",), "account": ("r_",), "allowance": ("r_",)}
    problems = []
    for kind, names in held.items():
        for parts in found.parts(kind):
            fields = found.values[_key(found, kind, parts)]
            left = {name: value for name, value in fields.items() if _is_one(name, names) and value not in ("0", "")}
            problems += [f"{kind} {fields.get('nm', parts)} has {left} reserved"] if left else []
    return problems + [
        f"somebody waits in {kind} {parts}" for kind in ("waiters", "called") for parts in found.parts(kind)
    ]


def _is_one(name: str, names: tuple[str, ...]) -> bool:
    return name in names or any(each.endswith("_") and name.startswith(each) for each in names)


def _key(found: Snapshot, kind: str, parts: list[str]) -> str:
    return str(found.keys.of(kind, *parts))


def _history(found: Snapshot, root: str) -> list[str]:
    problems = []
    lines = [json.loads(line) for line in found.values.get(found.keys.events(root), [])]
    ends = Counter(line.get("s", root) for line in lines if line["e"] == "finished")
    problems += [f"step {step} of {root} ended {times} times" for step, times in ends.items() if times != 1]
    for owner, run in found.parts("log"):
        if owner != root:
            continue
        heard = Counter(
            (entry["k"], entry["id"]) for entry in found.log(root, run) if entry["k"] in ("result", "joined")
        )
        problems += [f"the log of {run} has {what} {times} times" for what, times in heard.items() if times != 1]
    return problems
