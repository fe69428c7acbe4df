"""What the tasks do, whichever app has them."""

from __future__ import annotations

import os
from pathlib import Path


def note(line: str) -> None:
    """Append a line to the test's file; short lines are written whole."""
    with Path(os.environ["LEAVING_FILE"]).open("a") as file:
        file.write(line + "\n")


def double(n: int) -> int:
    """Return twice the number."""
    note(f"double {n}")
    return 2 * n


def total(numbers: list[int]) -> int:
    """Return the sum."""
    note(f"total {sorted(numbers)}")
    return sum(numbers)
