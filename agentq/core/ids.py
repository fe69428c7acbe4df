"""How runs and steps get their ids. It owns the spelling; who asks for one is not its matter."""

import hashlib
from functools import lru_cache
from typing import Final
from uuid import UUID, uuid4, uuid5

_FOREIGN_RUNS: Final = UUID("6b0f2f0e-7f0a-5d0b-9d3c-0a6f5b1c9e42")
"""Namespace for run ids that are no UUIDs: Celery lets a caller choose any text as task id."""


_VARIANTS: Final = "89ab"
"""The digits that say of a UUID how its others are laid out."""


def new_run_id() -> str:
    """A random id: nobody can guess a run's id from its agent, key or time."""
    return str(uuid4())


def step_id(run_id: str, key: str) -> str:
    """The id of the step that stands under this key in the run: the same in each attempt and replay."""
    # uuid5's own digits, without the objects that the standard library makes on the way: each step has one.
    digits = hashlib.sha1(_namespace_bytes(run_id) + key.encode(), usedforsecurity=False).hexdigest()
    variant = _VARIANTS[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def retry_id(run_id: str) -> str:
    """The id of the run as which this one is retried: whoever asks again names the same one, however late."""
    return str(uuid5(_namespace(run_id), "retry"))


def step_key(name: str, args_canonical_hash: str, occurrence: int) -> str:
    """The step's key: its name, the short hash of its canonical arguments, and how often both came before."""
    return f"{name}/{args_canonical_hash}/{occurrence}"


@lru_cache(maxsize=256)
def _namespace_bytes(run_id: str) -> bytes:
    return _namespace(run_id).bytes


def _namespace(run_id: str) -> UUID:
    try:
        return UUID(run_id)
    except ValueError:
        return uuid5(_FOREIGN_RUNS, run_id)
