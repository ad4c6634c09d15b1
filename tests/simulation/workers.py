"""Many Dask workers of one thread in one process: ``python -m tests.simulation.workers ADDRESS COUNT``.

Processes of their own would take 200 MB each; workers that mostly sleep need none.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any


async def serve(address: str, count: int) -> None:
    """Start the workers and wait until the scheduler lets them go."""
    from distributed import Worker

    options: dict[str, Any] = {"nthreads": 1, "memory_limit": 0, "dashboard": False}
    workers = [Worker(address, name=f"{os.getpid()}-{i}", **options) for i in range(count)]
    await asyncio.gather(*workers)
    await asyncio.gather(*(worker.finished() for worker in workers))


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
