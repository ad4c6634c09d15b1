"""The command line beside reenacting, and who imports what."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from flows.cli.main import app
from flows.cli.outcome import BAD_INPUT, OK, PARTIAL
from flows.cli.settings_command import list_settings
from portrait_core.settings import load_settings

ROOT = Path(__file__).parents[2]


def _invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    return result.exit_code, " ".join(result.output.split())


def test_help_teaches_where_to_start() -> None:
    code, said = _invoke("--help")
    assert code == OK
    assert all(
        word in said for word in ("portrait demo", "reenact", "doctor", "Exit codes", "same command again")
    )


def test_reenact_help_names_what_is_written() -> None:
    _, said = _invoke("reenact", "--help")
    written = ("reenactment.mp4", "contact_sheet.png", "expression.png", "summary.json")
    assert all(name in said for name in (*written, "--store"))


def test_version() -> None:
    code, said = _invoke("--version")
    assert code == OK
    assert said.startswith("portrait-reenactment ")


def test_settings_lists_every_setting_with_changes() -> None:
    code, said = _invoke("settings", "--profile", "paper", "--set", "tuning.steps=123")
    assert code == OK
    assert "tuning.steps 123" in said
    assert "inversion.phi vgg16" in said


def test_settings_mark_what_differs_from_the_default_alone() -> None:
    console = Console(record=True, width=400, file=io.StringIO())
    list_settings(load_settings(overrides=["tuning.steps=123"]), console)
    (cluster,) = [line for line in console.export_text(styles=True).splitlines() if "runner.cluster" in line]
    assert "\x1b[1m" not in cluster, "an empty default is no change"


def test_doctor_passes_a_complete_profile(tiny_generator: Path) -> None:
    code, said = _invoke("doctor", "--set", f"generator.weights={tiny_generator}")
    assert code == OK, said
    assert all(
        word in said for word in ("ffmpeg", "sha256", "astronaut.png", "carphone", "torch", "Apache-2.0")
    )


def test_doctor_says_what_is_missing() -> None:
    code, said = _invoke("doctor", "--set", "generator.weights=models/none.safetensors")
    assert code == PARTIAL
    assert "none.safetensors does not exist" in said


@pytest.mark.parametrize("arguments", [["reenact"], ["reenact", "--portait", "x"], ["dance"]])
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "flows.cli.main", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == BAD_INPUT
    assert "Traceback" not in ended.stderr


def _imported(statement: str, *packages: str) -> list[str]:
    """Which of the packages a statement imports, in a fresh interpreter."""
    code = f"import sys; {statement}; print([p for p in {packages!r} if p in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found: list[str] = eval(said.stdout)
    return found


def test_flows_import_no_torch() -> None:
    assert (
        _imported("import flows.cli.main, flows.reenact, flows.cli.doctor, flows.display.terminal", "torch")
        == []
    )


def test_the_command_line_starts_light() -> None:
    assert _imported("import flows.cli.main", "torch", "numpy", "prefect", "dask", "zarr") == []


def test_the_core_knows_no_orchestrator() -> None:
    """No module of portrait_core imports Prefect or Dask, or anything from tasks and flows."""
    wrong = []
    for path in (ROOT / "portrait_core").rglob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if len(words) > 1 and words[0] in ("import", "from"):
                package = words[1].split(".")[0].rstrip(",")
                wrong += (
                    [f"{path}: {line}"]
                    if package in ("prefect", "dask", "distributed", "tasks", "flows")
                    else []
                )
    assert wrong == []
