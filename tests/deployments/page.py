"""A picture of a flow run's page on a Prefect server, by a real browser (Debian: chromium).

    python -m tests.deployments.page http://127.0.0.1:4200 FLOW_RUN_ID page.png

The server must say to the browser where its API is: ``PREFECT_SERVER_UI_API_URL=http://127.0.0.1:4200/api``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

SIZE = (1500, 1600)
"""Width and height in pixels: the time line of the task runs, and below it the first lines of the log."""


def picture(server: str, run: str, target: Path, browser: str = "chromium") -> None:
    """Take a picture of the page of a flow run.

    Args:
        server: address of the pages, without ``/api``.
        run: id of the flow run.
        target: PNG file to write.
        browser: the program.

    Raises:
        RuntimeError: the browser failed.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options += ["--hide-scrollbars", f"--user-data-dir={profile}", f"--window-size={SIZE[0]},{SIZE[1]}"]
        # The page asks the API when it is there: its clock is run on until all answers have been drawn.
        options += ["--virtual-time-budget=30000", f"--screenshot={target.absolute()}"]
        page = f"{server.rstrip('/')}/runs/flow-run/{run}?tab=Logs"
        done = subprocess.run([browser, *options, page], capture_output=True, text=True, timeout=180)
    if done.returncode or not target.exists():
        raise RuntimeError(f"{browser} ended with {done.returncode}: {done.stderr[-2000:]}")


if __name__ == "__main__":
    picture(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
