"""What steps of the tests' projects leave for the tests to see, also when their process is killed next."""

from __future__ import annotations

import os


def note(path: str, *words: object) -> None:
    """Append a line at once: what other processes see of a step's attempts."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(handle)
