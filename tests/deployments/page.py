"""Pictures of a Prefect server's pages, by a real browser (Debian: chromium) that logs in as a user does.

    export PREFECT_API_AUTH_STRING=...          # what the server was started with
    python -m tests.deployments.page http://127.0.0.1:4200 FLOW_RUN_ID page.png

The server must say to the browser where its API is: ``PREFECT_SERVER_UI_API_URL=http://127.0.0.1:4200/api``.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import connect
from websockets.sync.connection import Connection

SIZE = (1500, 1600)
"""Width and height in pixels: the time line of the task runs, and below it the first lines of the log."""
PASSWORD = "document.querySelector('input[type=password]')"
TEXT = "(document.body ? document.body.innerText : '')"
REFUSED = "Invalid credentials"
PATIENCE_S = 150.0
DRAWN_S = 3.0
"""How long after its words the drawings of a page take."""


class Page:
    """A browser's page, over the protocol of its developers' tools."""

    def __init__(self, tools: Connection) -> None:
        self._tools = tools
        self._numbers = count(1)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._tools.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self._tools.recv(timeout=60))
            if said.get("id") == number:
                if "error" in said:
                    raise RuntimeError(f"{method}: {said['error']['message']}")
                return dict(said["result"])

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives."""
        return self._call("Runtime.evaluate", expression=expression)["result"].get("value")

    def wait(self, expression: str, what: str) -> None:
        """Wait until an expression of JavaScript is true."""
        limit = time.monotonic() + PATIENCE_S
        while not self.value(expression):
            if time.monotonic() > limit:
                raise RuntimeError(f"the page does not show {what}: {self.text()[-500:]}")
            time.sleep(0.3)

    def text(self) -> str:
        """What the page says."""
        return str(self.value(TEXT) or "")

    def go(self, address: str, words: str = "") -> str:
        """Open an address; what the page says once it says ``words``."""
        self._call("Page.navigate", url=address)
        self.wait(f"{TEXT}.includes({json.dumps(words)})", words)
        return self.text()

    def log_in(self, auth_string: str) -> bool:
        """Type the authentication string and press Enter; whether the server takes it."""
        self.wait(f"{PASSWORD} !== null", "a field for a password")
        self.value(f"{PASSWORD}.focus()")
        self._call("Input.insertText", text=auth_string)
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key="Enter", text="\r", windowsVirtualKeyCode=13)
        refused = f"{TEXT}.includes({json.dumps(REFUSED)})"
        self.wait(f"{refused} || ({PASSWORD} === null && {TEXT}.includes('Work Pools'))", "an answer")
        return not self.value(refused)

    def save(self, target: Path) -> None:
        """Write what is to be seen as a PNG file."""
        target.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))


@contextmanager
def browser(program: str = "chromium") -> Iterator[Page]:
    """Start a browser without a window, which ends with the block.

    Raises:
        RuntimeError: the browser failed.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options += ["--hide-scrollbars", f"--user-data-dir={profile}", f"--window-size={SIZE[0]},{SIZE[1]}"]
        command = [program, *options, "--remote-debugging-port=0", "about:blank"]
        started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with connect(_tools(started, Path(profile)), max_size=None) as tools:
                page = Page(tools)
                width, height = SIZE
                screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
                page._call("Emulation.setDeviceMetricsOverride", **screen)
                yield page
        finally:
            started.terminate()
            started.wait(30)


def _tools(started: subprocess.Popen[bytes], profile: Path) -> str:
    """Wait for the browser; the address at which its first page is controlled."""
    noted, limit = profile / "DevToolsActivePort", time.monotonic() + 60
    while not (noted.exists() and noted.read_text().strip()):
        if started.poll() is not None or time.monotonic() > limit:
            raise RuntimeError(f"the browser did not start: {started.returncode}")
        time.sleep(0.1)
    pages = httpx.get(f"http://127.0.0.1:{noted.read_text().split()[0]}/json/list", timeout=30).json()
    return str(next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"))


def picture(
    server: str,
    run: str,
    target: Path,
    auth_string: str,
    words: str = "Finished in",
    program: str = "chromium",
) -> str:
    """Take a picture of the page of a flow run; return what the page says.

    Args:
        server: address of the pages, without ``/api``.
        run: id of the flow run.
        target: PNG file to write.
        auth_string: what the server wants of its clients.
        words: what the page says when it is complete.
        program: the browser.

    Raises:
        RuntimeError: the browser failed, or the server refuses the authentication string.
    """
    site = server.rstrip("/")
    with browser(program) as page:
        page.go(site)
        if not page.log_in(auth_string):
            raise RuntimeError("the server refuses the authentication string")
        said = page.go(f"{site}/v2/runs/flow-run/{run}?tab=Logs", words)
        time.sleep(DRAWN_S)
        page.save(target)
    return said


if __name__ == "__main__":
    picture(sys.argv[1], sys.argv[2], Path(sys.argv[3]), os.environ["PREFECT_API_AUTH_STRING"])
