"""A state folder for the private server of a measurement, which goes when the measurement ends."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def state_folder() -> Path:
    """Return the folder that AGENTQ_STATE_DIR names; unset, it is made, named there, and removed at exit."""
    named = os.environ.get("AGENTQ_STATE_DIR")
    if named is None:
        named = os.environ["AGENTQ_STATE_DIR"] = tempfile.mkdtemp(prefix="agentq-bench-")
        atexit.register(shutil.rmtree, named, ignore_errors=True)
    return Path(named)
