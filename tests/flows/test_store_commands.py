"""Commands on the store alone, and what a run does by plan."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from flows.cli.main import app
from portrait_core.pipeline.pipelines import _known
from portrait_core.pipeline.state import read_jobs
from portrait_core.settings import load_settings
from portrait_core.store import Failure, Store
from tasks.pipelines import CLIP
from tests.flows.conftest import FRAMES, Arguments, Run, repeat


def call(*arguments: str | Path) -> Result:
    """The command line in this process, wide."""
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})


def planned(run: Run, arguments: Arguments, *changes: str) -> str:
    """What ``portrait plan`` says."""
    line = arguments(run.store, run.out, *changes)
    at = line.index("--out")
    ended = call("plan", *line[1:at], *line[at + 2 :])
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_status_says_how_far_a_clip_is(again: Run) -> None:
    ended = call("status", again.store)
    assert ended.exit_code == 0, ended.output
    assert "landmarks frame 3: input: no face was found" in ended.output
    (line,) = call("status", again.store, "--json").output.splitlines()
    said = json.loads(line)
    assert said["state"] == "done"
    assert {s["stage"]: s["done"] for s in said["stages"]}["render"] == FRAMES
    again.output("render").uncommit([4])
    ended = call("status", again.store, "--json")
    assert ended.exit_code == 1
    assert json.loads(ended.output)["state"] == "unfinished"


def test_status_of_many_clips_is_a_table(again: Run) -> None:
    (state,) = (again.store / "states").iterdir()
    for i in range(3):
        said = json.loads(state.read_text()) | {"id": f"{i:016x}", "label": f"clip-{i}"}
        said["state"] = "unfinished" if i == 1 else "done"
        (state.parent / f"{said['id']}.json").write_text(json.dumps(said))
    ended = call("status", again.store)
    assert "4 clips: 1 unfinished, 3 done" in ended.output
    assert next(line.split()[0] for line in ended.output.splitlines()[1:]) == "clip-1"


@pytest.mark.parametrize("command", ["status", "verify", "clean", "retry"])
def test_a_folder_that_is_no_store_is_refused(tmp_path: Path, command: str) -> None:
    ended = call(command, tmp_path)
    assert ended.exit_code == 2
    assert "holds no reenactment" in ended.output


def test_plan_names_the_setting_and_only_what_reads_it(again: Run, arguments: Arguments) -> None:
    assert "nothing to do" in planned(again, arguments)
    said = planned(again, arguments, "tuning.steps=9")
    assert "tuning.steps 4 -> 9" in said
    assert "by this store's history" in said
    again.output("render").uncommit([1, 2, 4])
    said = planned(again, arguments)
    assert "1-2, 4: new" in said


@pytest.mark.slow
@pytest.mark.each_change
def test_code_and_weights_that_changed_are_named(
    again: Run, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stages = [replace(s, version=s.version + 1) if s.name == "render" else s for s in CLIP.stages]
    monkeypatch.setitem(_known, "clip", replace(CLIP, stages=tuple(stages)))
    assert "its code changed (version" in planned(again, arguments)
    assert repeat(again, arguments).computed() == {"render": FRAMES, "encode": 1, "measure": 1}
    from portrait_core.generators import save_generator
    from tests.portrait_core import tiny

    other = tmp_path / "other.safetensors"
    save_generator(tiny.generator(seed=5), other)
    assert "weights generator changed" in planned(again, arguments, f"generator.weights={other}")


def test_a_store_that_moved_to_another_host_is_finished(
    again: Run, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    moved = Run(again.result, again.store.rename(tmp_path / "moved"), again.out)
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert repeat(moved, arguments).computed() == {}
    assert call("status", moved.store).exit_code == 0


def test_verify_finds_damage_and_repairs_it(again: Run, arguments: Arguments) -> None:
    sound = call("verify", again.store)
    assert sound.exit_code == 0, sound.output
    digest = sound.output.split("digest ")[1].split()[0]
    output = again.output("render")
    output.unpack("frames")
    chunk = next((again.store / output.path / "frames").glob("c.2.*"))
    chunk.write_bytes(chunk.read_bytes()[:-3] + b"xyz")
    (chunk.parent / "c.9.partial").write_bytes(b"half")
    found = call("verify", again.store)
    assert found.exit_code == 1
    assert f"corrupt render.{output.key}/frames frame 2" in found.output
    assert "half-written" in found.output
    assert call("verify", again.store, "--repair").exit_code == 1
    assert repeat(again, arguments).computed()["render"] == 1
    mended = call("verify", again.store)
    assert mended.exit_code == 0, mended.output
    assert mended.output.split("digest ")[1].split()[0] == digest


def test_clean_drops_pictures_and_a_later_run_makes_what_it_reads(again: Run, arguments: Arguments) -> None:
    before = again.output("render").read("frames")
    assert "would be freed" in call("clean", again.store, "--dry-run").output
    assert again.output("render").array_info("frames") is not None
    assert call("clean", again.store).exit_code == 0
    assert again.output("render").array_info("frames") is None
    assert again.output("inversion").array_info("latents") is not None
    assert call("verify", again.store).exit_code == 0
    assert repeat(again, arguments).computed() == {}
    again_ = repeat(again, arguments, "output.crf=30")
    assert again_.computed() == {"template": FRAMES, "render": FRAMES, "encode": 1}
    np.testing.assert_array_equal(again.output("render").read("frames"), before)


@pytest.mark.slow
@pytest.mark.each_change
def test_clean_to_the_clip_keeps_it_finished(again: Run, arguments: Arguments) -> None:
    assert call("clean", again.store, "--policy", "clip").exit_code == 0
    assert not list((again.store / "reenactment").glob("*/*/*/zarr.json")), "arrays are left"
    files = {path.name.partition(".")[0] for path in (again.store / "reenactment").glob("*/*/files/*")}
    assert files == {"reenactment", "side_by_side", "contact_sheet", "expression"}
    assert repeat(again, arguments).computed() == {}
    assert (again.out / "reenactment.mp4").is_file()
    assert again_summary(again)["losses"]["tuning_steps"]
    remade = repeat(again, arguments, "composite.feather_px=3")
    assert remade.computed()["tuning"] == 1


def again_summary(run: Run) -> dict[str, dict[str, object]]:
    """The summary of the last call."""
    return run.summary


def test_an_unfinished_clip_loses_nothing_to_clean(again: Run) -> None:
    again.output("encode").uncommit()
    assert "not finished, nothing dropped" in call("clean", again.store).output
    assert again.output("render").array_info("frames") is not None


@pytest.mark.slow
@pytest.mark.each_change
def test_force_makes_a_stage_and_its_readers_again_to_the_same_result(
    again: Run, arguments: Arguments
) -> None:
    before = again.output("render").read("frames")
    line = arguments(again.store, again.out)
    said = call(*line, "--force", "tuning", "--dry-run")
    assert "forced" in said.output
    assert repeat(again, arguments).computed() == {}, "a dry run changes nothing"
    assert call(*line, "--force", "tuning").exit_code == 1
    assert Run(again.result, again.store, again.out).computed() == {
        "tuning": 1, "pose": 1, "render": FRAMES, "encode": 1, "measure": 1,
    }  # fmt: skip
    np.testing.assert_array_equal(again.output("render").read("frames"), before)


def test_only_runs_the_stages_named(tmp_path: Path, arguments: Arguments) -> None:
    line = arguments(tmp_path / "store", tmp_path / "out")
    refused = call(*line, "--only", "person")
    assert refused.exit_code == 2
    assert "landmarks" in refused.output
    assert call(*line, "--only", "landmarks", "--only", "person").exit_code == 0
    said = json.loads(call("status", tmp_path / "store", "--json").output)
    finished = [s["stage"] for s in said["stages"] if s["done"] == s["total"]]
    assert finished == ["landmarks", "person"]
    unknown = call(*line, "--only", "paint")
    assert unknown.exit_code == 2
    assert all(stage in unknown.output.replace("\n", " ") for stage in CLIP.names)


def test_classes_and_policies_that_do_not_exist_are_refused(again: Run) -> None:
    assert "there is no class bad" in call("retry", again.store, "--class", "bad").output
    assert "there is no policy all" in call("clean", again.store, "--policy", "all").output
    assert "begins with" in call("status", again.store, "--clip", "nobody").output


@pytest.mark.slow
@pytest.mark.each_change
def test_clean_stale_deletes_what_no_job_names(again: Run, arguments: Arguments) -> None:
    kept = {path.parent for path in again.store.glob("*/*/*/zarr.json")}
    assert repeat(again, arguments, "composite.feather_px=3").computed()["render"] == FRAMES
    assert "- freed" in call("clean", again.store, "--stale").output, "both jobs are named"
    newest = max((again.store / "jobs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    newest.unlink()
    (again.store / "states" / newest.name).unlink()
    said = call("clean", again.store, "--stale", "--dry-run").output
    assert all(f"/{stage}." in said for stage in ("pose", "render", "encode", "measure"))
    assert "/tuning." not in said
    assert call("clean", again.store, "--stale").exit_code == 0
    assert {path.parent for path in again.store.glob("*/*/*/zarr.json")} == kept
    assert repeat(again, arguments).computed() == {}


def test_a_stored_job_chooses_no_runner(again: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = (again.store / "jobs").iterdir()
    job = json.loads(path.read_text())
    assert "runner" not in job["settings"], "where work is done is kept in no store"
    job["settings"]["runner"] = {"kind": "local_cluster", "cluster": {"preload": ["/tmp/evil.py"]}}
    path.write_text(json.dumps(job))
    (read,) = read_jobs(Store(again.store), "", load_settings("embedded", ["runner.workers=1"]))
    assert (read.settings.runner.kind, read.settings.runner.cluster) == ("threads", {})


def test_an_input_that_was_replaced_is_not_read(
    again: Run, arguments: Arguments, tmp_path: Path, portrait: Path
) -> None:
    other = tmp_path / "mine.png"
    Image.open(portrait).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(other)
    (path,) = (again.store / "jobs").iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"portrait": str(other)}))
    (job,) = read_jobs(Store(again.store), "", load_settings("embedded", ["runner.prefect=never"]))
    output = job.output("portrait")
    output.uncommit()
    job.unit("portrait").record_failures([Failure("portrait", None, "transient", "lost", key=output.key)])
    said = call("retry", again.store, "--set", "runner.workers=1")
    assert said.exit_code == 1
    assert "is not the file that this job was made from" in said.output
