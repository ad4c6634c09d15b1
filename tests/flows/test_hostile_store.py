"""Commands on a store in which a stranger left odd things: they are named, and the other clips go on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flows.cli.main import app
from flows.cli.retry import _folder
from flows.reenact import run_stages
from portrait_core.pipeline import Job, Pipeline, register
from portrait_core.pipeline.history import COST, Cost, read_cost, read_rates
from portrait_core.pipeline.ledger import DROPPED, RETRY_CUTOFFS, Ledger, quarantine_reason
from portrait_core.pipeline.state import _warned, read_job, save_job
from portrait_core.settings import load_settings
from portrait_core.store import Failure, Store, recipe_key
from tests.pipeline.toy import TOY, toy_job

PLAIN = ("runner.frames_per_task=2", "runner.workers=2", "runner.retry_delay_s=0", "device=cpu")


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[Pipeline.__module__]
    monkeypatch.setattr(module, "_known", dict(module._known))
    register(TOY)


@pytest.fixture(scope="session")
def two_clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Job]]:
    """A store with two finished clips."""
    folder = tmp_path_factory.mktemp("two")
    jobs = []
    module = sys.modules[Pipeline.__module__]
    before = dict(module._known)
    register(TOY)
    for label, seed in (("first", 1), ("second", 2)):
        job = toy_job(folder, load_settings("embedded", [*PLAIN, f"seed={seed}"]))
        inputs = job.inputs | {"portrait": recipe_key({"portrait": label}) * 4}
        jobs.append(job.model_copy(update={"label": label, "inputs": inputs}))
        run_stages(jobs[-1])
    module._known.clear()
    module._known.update(before)
    return folder / "store", jobs


@pytest.fixture
def store(two_clips: tuple[Path, list[Job]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(two_clips[0], tmp_path / "store"))


@pytest.fixture
def first(two_clips: tuple[Path, list[Job]], store: Path) -> Job:
    return two_clips[1][0].model_copy(update={"store": str(store)})


def call(*arguments: str | Path) -> Result:
    """The command line in this process, wide. It ends in an orderly way."""
    ended = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "400"})
    assert ended.exception is None or isinstance(ended.exception, SystemExit), ended.exception
    return ended


def test_a_sound_store_is_sound(store: Path) -> None:
    for command in (["status"], ["verify"], ["clean", "--dry-run"], ["clean", "--stale"]):
        ended = call(command[0], store, *command[1:])
        assert ended.exit_code == 0, ended.output
        assert "passed over" not in ended.output
    assert "2 clips: 2 done" in call("status", store).output


STATES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a number": lambda said: 5,
    "a list": lambda said: [],
    "frames without end": lambda said: said | {"frames": 10**40},
    "a negative count": lambda said: said | {"held": -1},
    "negative parts": lambda said: said | {"stages": [{"stage": "squares", "total": -5}]},
    "seconds that are text": lambda said: said | {"stages": [said["stages"][0] | {"seconds": "NaN"}]},
    "a list of labels": lambda said: said | {"label": ["first"]},
    "another job's id": lambda said: said | {"id": "../../etc/passwd"},
    "a condition of its own": lambda said: said | {"state": "[/nope]"},
}


@pytest.mark.parametrize("change", STATES)
def test_a_state_that_cannot_be_is_named_and_the_other_shown(store: Path, first: Job, change: str) -> None:
    path = store / "states" / f"{first.id}.json"
    path.write_text(json.dumps(STATES[change](json.loads(path.read_text()))))
    ended = call("status", store)
    assert ended.exit_code == 1
    assert "second" in ended.output
    assert f"1 records that cannot be read, and passed over: states/{first.id}.json" in ended.output
    assert call("status", store, "--json").output.count('"clip"') == 1
    verified = call("verify", store)
    assert verified.exit_code == 0, verified.output
    assert "digest" in verified.output
    assert f"states/{first.id}.json" in verified.output
    assert call("clean", store).exit_code == 0
    assert call("retry", store).exit_code == 0


ODD_STATES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an unknown pipeline": lambda said: said | {"goal": "nothing"},
    "an unknown stage": lambda said: said | {"stages": [{"stage": "nothing", "total": 1}]},
    "a time that is none": lambda said: said | {"time_utc": "soon"},
    "a text of megabytes": lambda said: said | {"message": "x" * 1_000_000, "label": "y" * 1_000_000},
    "many frames": lambda said: said | {"frames": 10**18},
}


@pytest.mark.parametrize("change", ODD_STATES)
def test_an_odd_state_is_shown_as_it_is(store: Path, first: Job, change: str) -> None:
    path = store / "states" / f"{first.id}.json"
    path.write_text(json.dumps(ODD_STATES[change](json.loads(path.read_text()))))
    ended = call("status", store)
    assert "2 clips: 2 done" in ended.output
    assert len(ended.output) < 100_000
    assert call("verify", store).exit_code == 0


JOBS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a number": lambda said: 5,
    "a list": lambda said: [],
    "nothing": lambda said: {},
    "frames without end": lambda said: said | {"frames": 10**18},
    "negative frames": lambda said: said | {"frames": -1},
    "an exponent as its rate": lambda said: said | {"frame_rate": "1e999999999"},
    "no rate": lambda said: said | {"frame_rate": "1/0"},
    "no inputs": lambda said: said | {"inputs": {}},
    "keys that lead elsewhere": lambda said: said | {"stage_keys": dict.fromkeys(said["stage_keys"], "..")},
    "no keys": lambda said: said | {"stage_keys": {}},
    "settings that are text": lambda said: said | {"settings": "embedded"},
    "an unknown pipeline": lambda said: said | {"goal": "nothing"},
    "edits of edits": lambda said: _nested(said, 50),
}


def _nested(said: dict[str, Any], depth: int) -> dict[str, Any]:
    return said | {"edited": _nested({"settings": {}}, depth - 1) if depth else 5}


@pytest.mark.parametrize("change", JOBS)
def test_a_job_that_cannot_be_is_named_and_the_other_verified(store: Path, first: Job, change: str) -> None:
    path = store / "jobs" / f"{first.id}.json"
    path.write_text(json.dumps(JOBS[change](json.loads(path.read_text()))))
    assert "2 clips" in call("status", store).output
    verified = call("verify", store)
    assert verified.exit_code == 0, verified.output
    assert "  second" in verified.output
    assert f"1 records that cannot be read, and passed over: jobs/{first.id}.json" in verified.output
    assert call("clean", store).exit_code == 0
    stale = call("clean", store, "--stale")
    assert stale.exit_code == 2
    assert "nothing is taken for stale" in stale.output


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "link", "holes"])
def test_records_that_are_no_files_are_named(store: Path, first: Job, tmp_path: Path, kind: str) -> None:
    (tmp_path / "mine").write_text("{}")
    for folder in ("jobs", "states"):
        path = store / folder / f"{first.id}.json"
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
                server.bind(path.name)
        elif kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(tmp_path / "mine")
        else:
            with path.open("wb") as file:
                file.truncate(1 << 40)
    ended = call("status", store)
    assert ended.exit_code == 1
    assert "second" in ended.output
    assert f"states/{first.id}.json" in ended.output
    assert call("verify", store).exit_code == 0
    assert call("clean", store).exit_code == 0
    assert (tmp_path / "mine").read_text() == "{}"


def test_names_of_others_are_counted(store: Path) -> None:
    for name in ("lost+found", ".DS_Store", "@eaDir", "jobs/.nfs0001", "states/Thumbs.db", "reenactment/~"):
        (store / name).mkdir()
    with open(os.fsencode(store) + b"/states/\xff\x1b[31m.json", "wb"):
        pass
    ended = call("status", store)
    assert ended.exit_code == 0
    assert (
        "6 no part of a store, and passed over: .DS_Store, @eaDir, jobs/.nfs0001, lost+found" in ended.output
    )
    assert r"states/\udcff\x1b[31m.json" in ended.output
    verified = call("verify", store)
    assert verified.exit_code == 0, verified.output
    assert "7 no part of a store, and passed over: " in verified.output


def _unit(job: Job) -> Path:
    kind, name = job.unit_of("squares")
    return Path(job.store) / kind / name


@pytest.mark.timeout(60)
def test_a_unit_that_is_a_link_is_named_and_the_others_are_gone_on_with(
    store: Path, first: Job, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    _unit(first).rename(outside)
    _unit(first).symlink_to(outside)
    before = {path: path.stat().st_size for path in outside.rglob("*")}
    (store / "states" / f"{first.id}.json").write_text(
        (store / "states" / f"{first.id}.json").read_text().replace('"done"', '"unfinished"')
    )
    ended = call("status", store)
    assert ended.exit_code == 1
    assert "leads out of the store: put what it leads to in its place" in ended.output
    assert "second" in ended.output
    verified = call("verify", store, "--repair")
    assert verified.exit_code == 1
    assert "leads out of the store" in verified.output
    assert "digest" in verified.output
    for arguments in (["--policy", "pictures"], ["--stale"]):
        ended = call("clean", store, *arguments)
        assert ended.exit_code == 1
        assert "leads out of the store" in ended.output
    assert call("retry", store).exit_code == 1
    assert {path: path.stat().st_size for path in outside.rglob("*")} == before


@pytest.mark.timeout(60)
def test_links_and_pipes_in_a_unit_are_named_and_nothing_outside_is_deleted(
    store: Path, first: Job, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "c.0.0").write_bytes(b"mine")
    (tmp_path / "mine" / "old.partial").write_bytes(b"mine")
    os.utime(tmp_path / "mine" / "old.partial", (0, 0))
    output = store / first.output("squares").path
    (output / "linked").symlink_to(tmp_path / "mine")
    os.mkfifo(output / "pipe")
    (output / "old.partial").symlink_to(tmp_path / "mine" / "old.partial")
    verified = call("verify", store)
    assert verified.exit_code == 0, verified.output
    assert verified.output.count("it is a link") == 2
    assert verified.output.count("it is a pipe") == 1
    assert call("clean", store).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["c.0.0", "old.partial"]


def test_notes_of_a_stranger_count_as_absent(first: Job) -> None:
    for value in (5, "text", [1, {}], {"seconds": -1, "task_seconds": 1e300, "work": None}, {"poison": 5}):
        for name in (COST, DROPPED, RETRY_CUTOFFS):
            first.output("squares").write_note(name, value)
        first.unit("squares").record_failures(
            [Failure("squares", 2, "poison", "x", key=first.stage_keys["squares"])]
        )
        assert read_cost(first, "squares") == Cost()
        assert Ledger(first).is_finished()
        assert Ledger(first).dropped_names("squares") <= {"text"}
        assert quarantine_reason(first) is None
        assert call("status", first.store).exit_code == 0
    for states in ([5], [{"stages": 5}], [{"stages": [5, {"stage": "squares", "work": "x", "bytes": -1}]}]):
        for number, state in enumerate(states):
            first.open_store().write_record(
                "states",
                f"odd{number}",
                {**state, "profile": "embedded"} if isinstance(state, dict) else state,
            )
        assert read_rates(first).keys() == {"squares", "added"}


def test_a_lease_of_an_odd_host_stops_nothing(store: Path, first: Job) -> None:
    lease = {"owner": "a", "host": "[/nope]", "pid": 1, "process_started": 0, "stage": "squares", "beat": 0}
    for time in ("9999-01-01T00:00:00+00:00", "soon"):
        (_unit(first) / "lease.json").write_text(json.dumps(lease | {"time_utc": time}))
        first.output("added").uncommit()
        lines = call("status", store, "--json", "--clip", "first").output.splitlines()
        (state,) = [json.loads(line) for line in lines]
        assert state["state"] == "unfinished"


def test_the_label_of_a_stranger_names_no_folder_elsewhere(first: Job) -> None:
    for label in ("../../elsewhere", "/etc", "..", ".", "", ".ssh", "a/b", "x" * 300, "a\nb"):
        assert _folder(first.model_copy(update={"label": label})) == first.id
    for label in ("first", "Zoë × clip-1", "a.b"):
        assert _folder(first.model_copy(update={"label": label})) == label


@pytest.mark.parametrize(("access", "mode", "said"), [("owner", 0o750, "go-rwx"), ("group", 0o755, "o-rwx")])
def test_an_older_store_that_others_may_read_is_named_once(
    first: Job, caplog: pytest.LogCaptureFixture, access: str, mode: int, said: str
) -> None:
    _warned.clear()
    job = first.model_copy(
        update={"settings": load_settings("embedded", [*PLAIN, f"runner.access={access}"])}
    )
    for folder in (Path(job.store), *(path for path in Path(job.store).iterdir() if path.is_dir())):
        folder.chmod(mode)
    save_job(job)
    save_job(job)
    assert caplog.text.count("others may read the store") == 1
    assert f"chmod -R {said} {job.store}" in caplog.text
    _warned.clear()
    caplog.clear()
    for folder in (path for path in Path(job.store).iterdir() if path.is_dir()):
        folder.chmod(0o700)
    save_job(job)
    assert "others may read" not in caplog.text


def test_the_command_runs_under_its_own_settings(store: Path, first: Job) -> None:
    """What a stored job says of limits is not read."""
    path = store / "jobs" / f"{first.id}.json"
    said = json.loads(path.read_text())
    said["settings"]["limits"] = {"video_frames": 1}
    path.write_text(json.dumps(said))
    job = read_job(Store(store), first.id, load_settings("embedded", []))
    assert job is not None
    assert job.settings.limits.video_frames == 1_000_000
