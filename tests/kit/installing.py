"""Installs packages as tests need them: an index that fails for a moment is no fault of the code under test."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_PAUSES_S: Final = (3.0, 15.0)


def install(argv: Sequence[str | Path]) -> None:
    """Run an installer, up to three times; raises CalledProcessError when none of them went well."""
    for pause in _PAUSES_S:
        if subprocess.call(argv) == 0:
            return
        time.sleep(pause)
    subprocess.run(argv, check=True)
