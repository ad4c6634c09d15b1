"""Who gets in at the server that ``deployments/server.sh`` starts: those alone who know the password."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.deployments.files import DEPLOYMENTS, run
from tests.deployments.page import browser
from tests.deployments.prefect_server import AUTH, Server, prefect_server
from tests.deployments.processes import PREFECT

slow = [pytest.mark.slow, pytest.mark.timeout(900)]
OPEN = {"/api/health", "/api/ready"}
"""What answers everyone: a truth value, for health checks."""
ELSEWHERE = {"Origin": "http://elsewhere.example"}


@pytest.mark.parametrize("given", ["", "portrait", "portrait:change-me", ":a-password-of-tests-418"])
def test_a_server_without_a_password_does_not_start(given: str, tmp_path: Path) -> None:
    """Where it does start, this test says so: there is no command ``prefect`` in the folder."""
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PREFECT_API_AUTH_STRING": given}
    done = run(DEPLOYMENTS / "server.sh", **env)
    assert done.returncode == 2
    assert "PREFECT_API_AUTH_STRING must be NAME:PASSWORD" in done.stderr


def test_what_a_server_is_started_with(tmp_path: Path) -> None:
    command = tmp_path / "prefect"
    command.write_text('#!/bin/sh\necho "$@"\nenv\n')
    command.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = run(DEPLOYMENTS / "server.sh", "--port", "4200", **env, PREFECT_API_AUTH_STRING=":".join(AUTH))
    first, *lines = done.stdout.splitlines()
    known = dict(line.split("=", 1) for line in lines if line.startswith("PREFECT_"))
    assert first == "server start --port 4200"
    assert known["PREFECT_SERVER_API_AUTH_STRING"] == ":".join(AUTH)
    assert known["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1:4200"
    assert known["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
    assert known["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    pages = Path(known["PREFECT_SERVER_UI_STATIC_DIRECTORY"])
    assert pages.is_relative_to(tmp_path), "others may write into /tmp, and what lies there is shown"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server on PostgreSQL."""
    with prefect_server(tmp_path_factory.mktemp("prefect-doors")) as started:
        yield started


class TestDoors:
    """Requests as anyone may send them."""

    pytestmark = slow

    def test_everything_wants_the_password(self, server: Server) -> None:
        site = server.api.removesuffix("/api")
        described = httpx.get(f"{site}/openapi.json", timeout=60).json()["paths"]
        asked = [(m, path) for path, methods in described.items() for m in methods]
        assert len(asked) > 150
        answered = {}
        with httpx.Client(timeout=60, headers=server.token) as stranger:
            for method, path in asked:
                place = path if path.startswith("/api/") else f"/api{path}"
                answered[method, place] = stranger.request(method, site + place).status_code
        opened = {place for (_, place), code in answered.items() if code != httpx.codes.UNAUTHORIZED}
        assert opened == OPEN
        wrong = (AUTH[0], AUTH[1] + "9")
        assert httpx.get(f"{server.api}/admin/version", auth=wrong).status_code == httpx.codes.UNAUTHORIZED

    @pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out"])
    @pytest.mark.parametrize("polite", [False, True])
    def test_streams_want_it_too(self, server: Server, path: str, polite: bool) -> None:
        address = f"{server.api.replace('http', 'ws', 1)}/{path}"
        protocols = [Subprotocol("prefect")] if polite else None

        def asked() -> None:
            with connect(address, subprotocols=protocols) as stream:
                stream.send(json.dumps({"type": "auth", "token": "a guess"}))
                stream.recv(timeout=20)

        with pytest.raises((ConnectionClosed, InvalidStatus)):
            asked()

    def test_pages_of_other_addresses_get_no_answer(self, server: Server) -> None:
        answer = httpx.get(f"{server.api}/health", headers=ELSEWHERE)
        assert "access-control-allow-origin" not in answer.headers
        wish = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
        asked = httpx.options(f"{server.api}/deployments/", headers=ELSEWHERE | wish)
        assert asked.status_code == httpx.codes.BAD_REQUEST
        assert "access-control-allow-origin" not in asked.headers
        own = server.api.removesuffix("/api")
        answer = httpx.get(f"{server.api}/health", headers={"Origin": own})
        assert answer.headers["access-control-allow-origin"] == own

    def test_a_change_wants_a_token(self, server: Server) -> None:
        flow = {"name": "made-by-another-page"}
        for token in ({}, server.token | {"Prefect-Csrf-Token": "guessed"}):
            answer = httpx.post(f"{server.api}/flows/", json=flow, auth=AUTH, headers=token)
            assert answer.status_code == httpx.codes.FORBIDDEN
            assert "token" in answer.json()["detail"]
        assert server.post("flows/filter") == []

    def test_health_checks_need_nothing(self, server: Server) -> None:
        check = [sys.executable, DEPLOYMENTS / "healthy.py", f"{server.api}/health"]
        server.processes.finished("healthy", check)

    def test_the_commands_say_what_to_do(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "m.csv").write_text("portrait,video\n")
        portrait = [sys.executable, "-m", "flows.cli.main"]
        submit = [*portrait, "dataset", "submit", tmp_path / "m.csv", "--shards", "1", "--store", tmp_path]
        commands = {"submit": submit, "register": ["bash", DEPLOYMENTS / "register.sh"]}
        commands["doctor"] = [*portrait, "doctor"]
        for given, why in (("", "is not set; set it to"), ("a:b", "is not the one that it was started with")):
            known = server.environment | {"PREFECT_API_AUTH_STRING": given, "COLUMNS": "300"}
            for name, command in commands.items():
                ended = server.processes.start(f"{name}-{len(given)}", command, **known)
                code = ended.wait(120)
                assert f"PREFECT_API_AUTH_STRING {why}" in ended.output, ended.output
                assert (code == 0) == (name == "doctor"), name
                assert "Traceback" not in ended.output

    def test_a_browser_logs_in(self, server: Server, tmp_path: Path) -> None:
        if shutil.which("chromium") is None:
            pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
        site = server.api.removesuffix("/api")
        with browser() as page:
            page.go(f"{site}/v2/deployments", "Login")
            assert not page.log_in("portrait:a guess")
            page.go(f"{site}/v2/deployments", "Login")
            assert page.log_in(":".join(AUTH))
            assert "Work Pools" in page.text()

    def test_the_command_line_of_prefect_gets_in(self, server: Server) -> None:
        command = [*PREFECT, "work-pool", "create", "doors", "--type", "process"]
        server.processes.finished("pool", command, **server.environment)
        assert server.get("work_pools/doors")["type"] == "process"
