"""Measurements in processes of their own: the peak of memory is then that of one thing alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]


def in_own_process(
    module: str, job: Mapping[str, Any], threads: int = 1, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run ``python -m module JSON`` in a fresh process, and return the JSON that its last line is.

    Raises:
        RuntimeError: with the last line of what it printed, if it fails.
    """
    # libraries read these when they load; a pool larger than asked for would share the caller's cores
    own = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} | dict(environment or {})
    command = [sys.executable, "-m", module, json.dumps(job)]
    done = subprocess.run(command, cwd=_ROOT, env=os.environ | own, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"killed, exit status {done.returncode}"]
        raise RuntimeError(said[-1])
    return dict(json.loads(done.stdout.splitlines()[-1]))
