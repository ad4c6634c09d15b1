"""``portrait dataset submit`` without a server; ``tests/deployments/test_prefect_runs.py`` has a real one."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from tests.faults.servers import HOST, free_port


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (None, "no Prefect server is named; set PREFECT_API_URL"),
        (f"http://{HOST}:{free_port()}/api", "no Prefect server answers at http"),
    ],
)
def test_submit_needs_a_server(tmp_path: Path, server: str | None, why: str) -> None:
    manifest, store = tmp_path / "m.csv", tmp_path / "store"
    manifest.write_text("portrait,video\n")
    given = ["dataset", "submit", str(manifest), "--store", str(store), "--shards", "2"]
    environment = {"COLUMNS": "200", "PREFECT_API_URL": server, "PREFECT_HOME": str(tmp_path)}
    ended = CliRunner().invoke(app, given, env=environment)
    assert ended.exit_code == 2, ended.output
    assert why in ended.output
    assert not store.exists()
