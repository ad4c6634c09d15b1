"""The folder of everything that the program keeps on this machine for speed alone.

Imports nothing but the standard library: it is read before Prefect is imported.
"""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(kind: str = "") -> Path:
    """Return the user's folder for the program's caches, which need not exist.

    Args:
        kind: a folder in it: ``inputs`` (copies of portraits and videos), ``models`` (copies and conversions
            of weights) or ``prefect``; empty is the folder of all caches.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "portrait-reenactment" / kind
