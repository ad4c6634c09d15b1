"""Data that would steer a terminal or a page, and secrets: neither leaves the program, whatever prints it."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text
from typer.testing import CliRunner, Result

import flows.display.progress
from flows.cli.main import app
from flows.cli.outcome import BAD_INPUT, OK, PARTIAL
from flows.cli.retry import retry_jobs
from flows.cli.settings_command import list_settings
from flows.dataset_run import ClipResult
from flows.display.console import SafeConsole, styled_line
from flows.display.progress import ArtifactBoard, TerminalBoard
from flows.engine.environment import refuse_secrets
from flows.engine.task_runs import process_left, run_title
from portrait_core.errors import InputError
from portrait_core.pipeline.ledger import record_failures
from portrait_core.pipeline.state import read_jobs, record_state, save_job
from portrait_core.runtime.package_files import sample_portrait
from portrait_core.settings import Settings, load_settings
from portrait_core.store import Failure, Store
from portrait_core.text import redaction
from tests.portrait_core.website import Website, website
from tests.simulation.stub import ENVIRONMENT, StubSettings, stub_job

ROOT = Path(__file__).parents[2]
STEERING = "\x1b]52;c;QQ==\x07\x9b31m\u202e\u200b\u2028\ud800\r\n\t[/nope][link=http://evil]:bomb:"
"""What steers a terminal, and what rich would take for markup or an emoji."""
PLAIN = "\\x1b]52;c;QQ==\\x07\\x9b31m\\u202e\\u200b\\u2028\\ud800\\r\\n\\t[/nope][link=http://evil]:bomb:"
CANARY = re.compile("CANARY|Q0FOQVJZ")
"""The secret of these tests, and its beginning in Base64."""


@pytest.fixture(autouse=True)
def _forgetful() -> Iterator[None]:
    """Let no test know the secrets of another by heart."""
    redaction._known.clear()
    yield
    redaction._known.clear()


@pytest.fixture
def site() -> Iterator[Website]:
    """A server whose files ask for nothing."""
    with website() as served:
        yield served


def _console(**options: object) -> tuple[SafeConsole, io.StringIO]:
    file = io.StringIO()
    return SafeConsole(file=file, width=300, **options), file


def _printable(said: str, lines: int | None = None) -> None:
    assert said.replace("\n", "").isprintable(), ascii(said)
    assert lines is None or said.count("\n") == lines


def _invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "300"})


# The console


def test_data_is_shown_as_it_is_in_one_line_wherever_it_is_printed() -> None:
    console, file = _console()
    table = Table(box=None)
    table.add_column("a", overflow="fold")
    table.add_row(STEERING)
    for printed in (STEERING, table, Group(STEERING), Panel(STEERING), styled_line((STEERING, "bold"))):
        file.truncate(file.seek(0))
        console.print(printed, soft_wrap=True)
        assert PLAIN in file.getvalue()
        _printable(file.getvalue())
    console.print(Text(STEERING))
    console.print(STEERING, STEERING, markup=True, emoji=True)
    _printable(file.getvalue())


def test_a_terminal_gets_the_program_s_own_styles_and_no_codes_of_data() -> None:
    console, file = _console(force_terminal=True, color_system="standard")
    console.print(styled_line((STEERING, "bold red"), STEERING))
    console.print(Text("x", style="link http://evil"))
    with Progress(TextColumn("{task.description}", markup=False), console=console) as progress:
        progress.add_task(STEERING)
        print(f"{STEERING}\x1b]8;;http://evil\x1b\\x\x1b]8;;\x1b\\")
    said = file.getvalue()
    assert "\x1b[1;31m" in said
    assert "\x1b]" not in said
    _printable(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said).replace("\r", ""))


def test_every_console_of_the_command_line_is_the_safe_one() -> None:
    made = re.compile(
        r"(?<![\w.])(Console|Markdown|Syntax|Pretty)\(|from_markup|from_ansi|typer\.(s?echo|secho)"
    )
    wrong = [
        f"{path}: {line}"
        for path in (ROOT / "flows").rglob("*.py")
        if path.name != "console.py"
        for line in path.read_text().splitlines()
        if made.search(line)
    ]
    assert wrong == []


def test_errors_of_usage_quote_arguments_without_steering() -> None:
    for arguments in (
        ["reenact", f"--x{STEERING}", "y"],
        [f"dance{STEERING}"],
        ["evaluate", "--store", "s", "--out", "o", "--clips", f"https://me:CANARY@h/{STEERING}"],
        ["dataset", "check", "a", f"b{STEERING}"],
    ):
        result = _invoke(*arguments)
        assert result.exit_code == BAD_INPUT
        _printable(result.output)
        assert not CANARY.search(result.output)


def test_a_mistake_of_the_program_is_told_without_secrets_and_codes() -> None:
    code = f"""
import sys
import flows.cli.main as command
def broken(*_, **__): raise KeyError({f"https://me:CANARY@h/{STEERING}"!r})
command.prepared_settings = broken
sys.argv = ["portrait", "doctor"]
command.main()
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ended.returncode == PARTIAL
    assert "KeyError" in ended.stderr
    assert "Traceback" in ended.stderr
    _printable(ended.stderr)
    assert not CANARY.search(ended.stderr)


# What a store and a manifest hold


def _hostile_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Write two jobs whose labels, messages and failures are hostile."""
    monkeypatch.setenv(ENVIRONMENT, StubSettings(size=32, generator_mb=0.01).model_dump_json())
    settings = load_settings("embedded", ["runner.workers=1"])
    hostile = STEERING.replace("\ud800", "")  # not to be written as UTF-8
    url = "https://me:CANARY@host/a.png?sig=CANARY"
    for i, portrait in enumerate(("a", "b")):
        job = stub_job(str(store), f"clip {i} {hostile}", 2 + i, settings)
        job = job.model_copy(update={"portrait": url, "video": f"s3://KEY:CANARY@bucket/{portrait}.mp4"})
        save_job(job)
        row = Failure("portrait", None, "transient", f"{hostile} {url}", key=job.stage_keys["portrait"])
        record_failures(job, "portrait", [row])
        record_state(job, f"stopped: {hostile} {url}", failed=True)
    return settings


def test_commands_on_a_hostile_store_print_nothing_that_steers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _hostile_store(tmp_path, monkeypatch)
    for arguments in (
        ["status"],
        ["status", "--clip", "clip 1"],
        ["verify"],
        ["clean", "--dry-run"],
        ["status", "--json"],
    ):
        result = _invoke(arguments[0], tmp_path, *arguments[1:])
        assert result.exit_code in (OK, PARTIAL), result.output
        assert "clip 1" in result.output
        _printable(result.output)
        assert not CANARY.search(result.output)
    for line in _invoke("status", tmp_path, "--json").output.splitlines():
        assert json.loads(line)["clip"].startswith("clip")
    assert "no reenactment in" in _invoke("status", tmp_path, "--clip", STEERING).output
    console, file = _console()
    jobs = read_jobs(Store(str(tmp_path)), "", settings)
    assert retry_jobs(jobs, (), ["transient"], "keep", None, settings, console) == 2
    assert "give its own command again, with the whole URL" in file.getvalue()
    _printable(file.getvalue())


def test_what_a_store_keeps_of_a_url_is_without_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _hostile_store(tmp_path, monkeypatch)
    assert _texts(tmp_path)
    assert _leaks(tmp_path) == []
    job = read_jobs(Store(str(tmp_path)), "clip 0", settings)[0]
    assert (job.portrait, job.video) == ("https://***@host/a.png?***", "s3://***@bucket/a.mp4")
    labels = {Store(str(tmp_path)).unit(*job.unit_of(stage)).read_label() for stage in job.stages}
    assert {"a.png", "a.mp4"} <= labels


def test_a_hostile_manifest_is_told_line_by_line(tmp_path: Path) -> None:
    cell = STEERING.replace("\ud800", "").replace("\n", "").replace("\r", "")
    manifest = tmp_path / "m.csv"
    row = f'"a{cell}\nrow 9: all is well","https://me:CANARY@h:1/v{cell}.mp4?sig=CANARY","n{cell}",x,y\n'
    manifest.write_text(f"portrait,video,name,licence,consent\n{row}{row}", encoding="utf-8")
    for command in (["check", manifest], ["run", manifest, "--store", tmp_path / "store"]):
        result = _invoke("dataset", *command)
        assert result.exit_code == BAD_INPUT
        _printable(result.output)
        assert not [line for line in result.output.splitlines() if line.startswith("row 9")]
        assert not CANARY.search(result.output)
    assert not (tmp_path / "store").exists()


# Prefect's pages


def test_artifacts_hold_markdown_that_shows_data_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import prefect.artifacts

    kept: list[object] = []
    monkeypatch.setattr(prefect.artifacts, "create_progress_artifact", lambda *a, **k: kept.append((a, k)))
    monkeypatch.setattr(prefect.artifacts, "create_table_artifact", lambda *a, **k: kept.append((a, k)))
    hostile = f"![](http://evil/x) [a](javascript:b) <script>|{STEERING} https://me:CANARY@h"
    board = ArtifactBoard()
    board.begin(2)
    board.began(hostile)
    board.ended(ClipResult(2, hostile, "failed", hostile))
    board.began(hostile)
    board.show()
    assert len(kept) == 2
    said = str(kept)
    for part in ("![](", "[a](", "<script", "CANARY"):
        assert part not in said
    _printable(said)


def test_names_of_runs_are_no_formats() -> None:
    assert run_title("a {portrait.__class__}\x1b\n") == "a (portrait.__class__)\\x1b\\n"


@pytest.mark.parametrize(
    "parameters",
    [
        ["https://me:CANARY@host/a.png", "v.mp4"],
        ["a.png", ["https://host/v.mp4?sig=CANARY"]],
        ["a.png", ["runner.address=tls://me:CANARY@host"]],
        ["a.png", ['runner.storage_options={"secret": "CANARY"}']],
        ["s3://AKIAIOSFODNN7EXAMPLE:CANARY@bucket/store"],
    ],
)
def test_no_secret_becomes_a_parameter_that_prefect_keeps(parameters: list[object]) -> None:
    with pytest.raises(ValueError, match=r"runner\.prefect=never") as refused:
        refuse_secrets(parameters)
    assert "CANARY" not in str(refused.value)
    refuse_secrets(["a.png", "s3://bucket/me@home.mp4", ["runner.workers=8", "render.x=1"], 3, None, True])


def test_no_state_of_a_flow_run_holds_a_secret() -> None:
    for raised in (
        KeyError("https://me:CANARY@h"),
        ValueError("password='CANARY'"),
        OSError("tls://CANARY@h"),
    ):
        with pytest.raises(Exception, match=r"\*\*\*") as ended, process_left():
            raise raised
        assert "CANARY" not in str(ended.value)
        assert ended.value.__cause__ is None
    with pytest.raises(InputError, match="no picture") as kept, process_left():
        raise InputError("no picture")
    assert type(kept.value) is InputError


# Commands with secrets


def test_settings_of_a_store_are_not_printed() -> None:
    console, file = _console()
    changes = ["runner.storage_options={key: CANARY, secret: CANARY}", "runner.cluster={name: CANARY}"]
    list_settings(load_settings("embedded", changes), console)
    assert not CANARY.search(file.getvalue())
    assert "{'key': '***', 'secret': '***'}" in file.getvalue()


def test_a_run_on_urls_with_secrets_leaves_none_where_it_fails(
    tmp_path: Path, site: Website, carphone: Path, small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cat, so that it fails after it began: with a job, a state, labels and rows of failures."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    site.files = {
        "/cat.png": sample_portrait().with_name("chelsea.png").read_bytes(),
        "/clip.mp4": carphone.read_bytes(),
    }
    portrait, video = (
        f"http://me:CANARYPASS@{site.address}/{name}?X-Amz-Signature=CANARYSIGN#access_token=CANARYTOKEN"
        for name in ("cat.png", "clip.mp4")
    )
    settings = [part for change in small for part in ("--set", change)]
    settings += ["--set", "runner.storage_options={secret: CANARYOPTION}"]
    places = ["--store", tmp_path / "store", "--out", tmp_path / "out", *settings]
    result = _invoke("reenact", "--portrait", portrait, "--video", video, *places)
    assert result.exit_code == BAD_INPUT
    assert "no human face was found in the portrait http://***@127.0.0.1" in " ".join(result.output.split())
    said = result.output
    site.status = 403
    for missing in (
        ("--portrait", portrait, "--video", f"{video}2"),
        ("--portrait", video, "--video", video),
    ):
        said += _invoke("reenact", *missing, *places).output
    said += _invoke("plan", "--portrait", portrait, "--video", video, *places[:2], *settings).output
    (tmp_path / "in").mkdir()
    manifest = tmp_path / "in" / "m.csv"
    manifest.write_text(f"portrait,video,licence,consent\n{portrait},{video},x,y\n")
    for command in ("check", "run", "plan"):
        more = [] if command == "check" else places[:2]
        said += _invoke("dataset", command, manifest, *more, *settings).output
    for command in ("status", "verify", "retry"):
        said += _invoke(command, tmp_path / "store").output
    assert any("CANARYSIGN" in line for line in site.asked), "the site was asked with the signature"
    assert not CANARY.search(said)
    _printable(said)
    assert {"store", "cache"} <= {path.name for path in tmp_path.iterdir()}
    assert [leak for leak in _leaks(tmp_path) if leak.parts[0] != "in"] == []


@pytest.mark.slow
def test_a_whole_run_on_urls_with_secrets_leaves_none(
    tmp_path: Path,
    site: Website,
    portrait: Path,
    driver: Path,
    small: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    site.files = {"/face.png": portrait.read_bytes(), "/clip.mp4": driver.read_bytes()}
    places = [
        part
        for role, name in (("--portrait", "face.png"), ("--video", "clip.mp4"))
        for part in (role, f"http://me:CANARYPASS@{site.address}/{name}?X-Amz-Signature=CANARYSIGN")
    ]
    places += ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
    settings = [part for change in small for part in ("--set", change)]
    first = _invoke("reenact", *places, *settings)
    again = _invoke("reenact", *places, *settings)
    shown = _invoke("status", tmp_path / "store")
    assert first.exit_code == again.exit_code == PARTIAL, first.output
    assert "everything was done already" in again.output
    assert not CANARY.search(first.output + again.output + shown.output)
    assert (tmp_path / "out" / "summary.json").is_file()
    assert _leaks(tmp_path) == []


def _leaks(folder: Path) -> list[Path]:
    """Return the files below a folder whose name or content holds the secret."""
    return [path.relative_to(folder) for path, text in _texts(folder).items() if CANARY.search(text)]


def _texts(folder: Path) -> dict[Path, str]:
    """Return name and content of every file, of tables also what they hold compressed."""
    texts = {}
    for path in folder.rglob("*"):
        text = str(path.relative_to(folder))
        if path.is_file():
            text += path.read_bytes().decode("latin-1")
            text += pd.read_parquet(path).to_json() if path.suffix == ".parquet" else ""
        texts[path] = text
    return texts


def test_logs_of_a_run_are_clean(caplog: pytest.LogCaptureFixture) -> None:
    from portrait_core.text.process_output import guard_output

    guard_output()
    with caplog.at_level(logging.WARNING, logger=flows.display.progress.__name__):
        board = ArtifactBoard()
        board.report(f"a{STEERING}", "https://me:CANARY@h")
        board.ended(ClipResult(1, STEERING, "failed", "tls://me:CANARY@h"))
    said = "".join(record.getMessage() for record in caplog.records)
    assert len(caplog.records) == 2
    _printable(said)
    assert not CANARY.search(said)


def test_boards_print_failures_in_one_line_each() -> None:
    console, file = _console()
    board = TerminalBoard(console)
    board.begin(1)
    board.report(STEERING, f"{STEERING} https://me:CANARY@h")
    board.ended(ClipResult(2, STEERING, "failed", f"{STEERING} https://h/?sig=CANARY"))
    board.show()
    _printable(file.getvalue(), lines=3)
    assert not CANARY.search(file.getvalue())
    assert isinstance(console, Console)
