"""Attributes on the command line: a flow trained, a portrait edited, the edit animated, in a manifest too."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from flows.cli.main import app
from portrait_core.attribute_editing.scene_attributes import scene_conditions
from portrait_core.attribute_editing.styleflow_files import load_styleflow, styleflow_metadata
from portrait_core.face_model.landmark_regions import INNER_LIPS
from portrait_core.inversion.targets import image_array
from portrait_core.media import read_image
from portrait_core.pipeline import Job
from portrait_core.pipeline.state import look_up_state, read_jobs
from portrait_core.runtime.model_cache import forget_models
from portrait_core.runtime.package_files import sample_portrait
from portrait_core.settings import Settings
from portrait_core.store import Store
from tasks.fitting import clip_data
from tasks.stages.inversion import _inverter
from tests.faults.runs import environment, start_cold
from tests.flows.conftest import Arguments, markers

SAMPLES, HELD_OUT = 40, 8
TRAINING = [
    f"flow.held_out={HELD_OUT}",
    "flow.batch=8",
    "flow.epochs=3",
    "flow.hidden=[16]",
    "flow.sheet=1",
    "sample.neural_resolution=16",
    "runner.frames_per_task=20",
]
EDITING = ["edit.first_steps=3", "edit.tuning_steps=2", "edit.strip=3", "tuning.locality_patch=8"]


def call(*line: str | Path) -> Result:
    """Give a command."""
    return CliRunner().invoke(app, [str(part) for part in line])


def sets(*changes: str) -> list[str]:
    """``--set`` options."""
    return [part for change in changes for part in ("--set", change)]


def jobs_in(store: Path) -> list[Job]:
    """The jobs that a store keeps."""
    return read_jobs(Store(str(store)), "", Settings())


@dataclass(frozen=True)
class Trained:
    """A trained flow."""

    result: Result
    store: Path
    out: Path
    line: list[str]

    @property
    def flow(self) -> Path:
        """Its file."""
        return self.out / "attribute_flow.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, small: list[str]) -> Trained:
    folder = tmp_path_factory.mktemp("flow")
    store, out = folder / "store", folder / "out"
    line = ["train-styleflow", "--samples", str(SAMPLES), "--store", str(store), "--out", str(out)]
    line += sets(*small, *TRAINING)
    return Trained(call(*line), store, out, line)


def test_a_flow_is_trained_with_its_curve_and_pictures(trained: Trained) -> None:
    assert trained.result.exit_code == 0, trained.result.output
    assert "held-out log-density" in trained.result.output
    model = load_styleflow(trained.flow)
    assert model.conditions.names == scene_conditions().names
    assert model.reader is not None
    assert len(model.reader.r2) == len(model.conditions)
    rows = list(csv.DictReader((trained.out / "curve.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(np.isfinite(float(row["held_out_log_density"])) for row in rows)
    about = styleflow_metadata(trained.flow)
    assert about["samples"] == str(SAMPLES)
    assert about["labels"] == "scene"
    sheet = read_image(trained.out / "contact_sheet.png")
    assert sheet.shape[0] > 100 * len(model.conditions)
    assert read_image(trained.out / "curve.png").std() > 0


def test_samples_are_kept_with_pictures_and_labels_and_a_second_run_does_nothing(trained: Trained) -> None:
    (job,) = jobs_in(trained.store)
    rows = job.output("sample").read_together(("latents", "labels", "pictures"))
    assert rows["latents"].shape[:2] == (SAMPLES, 1)
    assert np.isfinite(rows["labels"]).all()
    assert rows["pictures"].shape == (SAMPLES, 32, 32, 3)
    assert rows["pictures"].std() > 0
    assert look_up_state(job).state == "done"
    made = trained.flow.stat().st_mtime_ns
    assert call(*trained.line).exit_code == 0
    assert trained.flow.stat().st_mtime_ns == made


def test_lost_samples_come_again_as_they_were(trained: Trained) -> None:
    (job,) = jobs_in(trained.store)
    output, names = job.output("sample"), ("latents", "labels", "pictures")
    before, lost = output.read_together(names), [3, 17, 39]
    flow = job.output("flow").get_bytes("attribute_flow.safetensors")
    output.uncommit(lost)
    job.output("flow").uncommit()
    forget_models()
    again = call(*trained.line)
    assert again.exit_code == 0, again.output
    after = job.output("sample").read_together(names)
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name])
    assert job.output("flow").get_bytes("attribute_flow.safetensors") == flow


@pytest.mark.slow
@pytest.mark.parametrize("reached", ["sample", "flow"])
def test_a_training_killed_on_two_workers_ends_with_the_same_flow(
    trained: Trained, tmp_path: Path, reached: str
) -> None:
    """SIGKILL of the run and its Dask workers among the samples, and in the training."""
    line = [*trained.line, *sets("runner.kind=local_cluster", "runner.frames_per_task=5", "flow.epochs=30")]
    for option in ("--store", "--out"):
        line[line.index(option) + 1] = str(tmp_path / option.strip("-"))
    marks = {"sample": "flow/*/sample.*/done/*", "flow": "flow/*/flow.*/notes/flow_curve.json"}
    program = [sys.executable, "-m", "flows.cli.main", *line]
    killed = start_cold(program, tmp_path / "killed.log", environment())
    assert killed.watch(lambda: any((tmp_path / "store").glob(marks[reached]))), killed.output
    killed.destroy()
    killed.wait(60)
    assert not (tmp_path / "out").exists(), killed.output
    again = start_cold(program, tmp_path / "again.log", environment())
    assert again.wait() == 0, again.output
    undisturbed = [*trained.line, *sets("flow.epochs=30")]
    undisturbed[undisturbed.index("--out") + 1] = str(tmp_path / "whole")
    assert call(*undisturbed).exit_code == 0
    name = "attribute_flow.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_table_of_labels_comes_before_the_scenes(trained: Trained, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("picture,age\n" + "".join(f"{i},{20 + i}\n" for i in range(SAMPLES)))
    line = [*trained.line, *sets(f"flow.labels={table}")]
    line[line.index("--out") + 1] = str(tmp_path / "out")
    ended = call(*line)
    assert ended.exit_code == 0, ended.output
    made = load_styleflow(tmp_path / "out" / "attribute_flow.safetensors")
    age = made.conditions.attributes[made.conditions.index("age")]
    assert age.mean == pytest.approx(20 + (SAMPLES - 1) / 2, abs=3)
    other = load_styleflow(trained.flow)
    assert age.mean != other.conditions.attributes[other.conditions.index("age")].mean
    table.write_text("picture,age,agee\n1,old,3\n")
    refused = call(*line)
    assert refused.exit_code == 2
    assert "did you mean age" in " ".join(refused.output.split())


def test_pictures_without_a_face_leave_nothing_to_learn_from(trained: Trained, tmp_path: Path) -> None:
    line = [*trained.line, *sets("sample.labels=photograph")]
    line[line.index("--store") + 1] = str(tmp_path / "store")
    line[line.index("--samples") + 1] = str(HELD_OUT + 8)
    refused = call(*line)
    assert refused.exit_code == 2
    assert "samples show a face" in " ".join(refused.output.split())


@pytest.fixture(scope="module")
def edited(trained: Trained, tmp_path_factory: pytest.TempPathFactory, small: list[str]) -> Trained:
    folder = tmp_path_factory.mktemp("edit")
    store, out = folder / "store", folder / "out"
    line = ["edit", "--portrait", str(sample_portrait()), "--store", str(store), "--out", str(out)]
    line += sets("age=+20", "beard=0.9", f"edit.flow={trained.flow}", *small, *EDITING)
    return Trained(call(*line), store, out, line)


def test_an_edit_inverts_the_photograph_itself(edited: Trained) -> None:
    (job,) = jobs_in(edited.store)
    assert job.stages == ("portrait", "layers", "inversion", "tuning", "edit")
    assert (job.settings.inversion.outside_weight, job.settings.inversion.patch_share) == (1.0, 1.0)
    forget_models()
    clip, crop = clip_data(job), job.output("portrait").read("crop")[0]
    for tuning in (False, True):
        target = clip.target(0, tuning=tuning)
        assert np.array_equal(image_array(target.image), crop)  # no template, no painted mouth
        assert float(target.mouth.max()) == float(target.uncovered.max()) == 0
    inverter = _inverter(job, clip)
    assert float(inverter._weight(clip.target(0), inverter.settings.outside_weight).min()) == 1


def test_a_store_with_edits_and_flows_is_cleaned_of_nothing(edited: Trained, trained: Trained) -> None:
    for made in (edited, trained):
        cleaned = call("clean", made.store)
        assert cleaned.exit_code == 0, cleaned.output


def test_what_is_loaded_for_a_clip_is_its_devices_and_takes_the_runs_settings(edited: Trained) -> None:
    (job,) = jobs_in(edited.store)

    def other(**changes: object) -> Job:
        return job.model_copy(update={"settings": job.settings.model_copy(update=changes)})

    assert clip_data(job) is clip_data(other(commercial=True))
    assert clip_data(other(device="meta")).device.type == "meta"
    assert _inverter(job, clip_data(job)).checkpoint_s == job.settings.runner.checkpoint_s
    again = other(runner=job.settings.runner.model_copy(update={"checkpoint_s": 7.0}))
    assert _inverter(again, clip_data(job)).checkpoint_s == 7.0


def test_a_store_of_another_version_is_named_so(edited: Trained, tmp_path: Path) -> None:
    shutil.copytree(edited.store, tmp_path / "store")
    (path,) = (tmp_path / "store").glob("jobs/*.json")
    path.write_text(path.read_text().replace('"warm_start"', '"checkpoint_every":100,"warm_start"'))
    said = call("retry", tmp_path / "store")
    assert said.exit_code == 2
    assert "another version wrote them" in said.output
    (tmp_path / "store" / "store.json").write_text('{"format":99}')
    said = call("status", tmp_path / "store")
    assert said.exit_code == 2
    assert "another version of this program (format 99" in said.output


def test_an_edit_is_shown_measured_and_kept(edited: Trained) -> None:
    assert edited.result.exit_code == 0, edited.result.output
    said = json.loads((edited.out / "edit.json").read_text())
    assert said["edit"] == ["age=+20", "beard=0.9"]
    age = said["attributes"]["age"]
    assert 18 <= age["target"] <= 80
    assert age["read_back"] is not None
    assert said["attributes"]["beard"]["target"] == 0.9
    assert set(said["drift"]) == {"latent", "head_shape", "perceptual", "identity"}
    assert said["drift"]["latent"] > 0
    assert "identity drift" in edited.result.output
    portrait, made = read_image(sample_portrait()), read_image(edited.out / "edited.png")
    assert made.shape == portrait.shape
    latents = np.load(edited.out / "latents.npz")
    assert np.abs(latents["after"] - latents["before"]).max() > 0
    assert read_image(edited.out / "strip.png").shape[1] > 3 * 256


def test_an_edit_leaves_background_and_teeth_as_they_are(edited: Trained) -> None:
    (job,) = [one for one in jobs_in(edited.store) if "beard-0_9" in one.label and "plus" in one.label]
    portrait, made = read_image(sample_portrait()), read_image(edited.out / "edited.png")
    changed = (portrait != made).any(-1)
    assert changed.any(), "an untrained generator changes something"
    assert not changed[job.output("layers").read("coverage")[0] == 0].any()
    landmarks = job.output("portrait").read("landmarks")[0]
    middle = [line[len(line) // 2] for line in (INNER_LIPS.upper, INNER_LIPS.lower)]
    teeth = landmarks[middle].mean(0).astype(int)
    assert not changed[teeth[1], teeth[0] - 4 : teeth[0] + 5].any()
    assert changed[job.output("layers").read("coverage")[0] == 255].mean() > 0.01


def test_a_second_edit_takes_the_portrait_as_inverted(edited: Trained, tmp_path: Path) -> None:
    store = Store(str(edited.store))
    (inverted,) = store.units("inverted")
    before = markers(edited.store)
    line = [part if part != "age=+20" else "age=-10" for part in edited.line]
    line[line.index("--out") + 1] = str(tmp_path)
    assert call(*line).exit_code == 0
    assert store.units("inverted") == [inverted]
    made = {name for name in markers(edited.store) - before if not name.startswith("edited/")}
    assert made == set()
    assert len(store.units("edited")) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("hat=on", "this StyleFlow knows age"),
        ("age=200", "expected 18..80 years"),
        ("age=old", "cannot read the edit"),
    ],
)
def test_an_edit_that_cannot_be_made_is_refused_before_any_work(
    edited: Trained, tmp_path: Path, change: str, said: str
) -> None:
    line = [part if part != "age=+20" else change for part in edited.line]
    line[line.index("--store") + 1] = str(tmp_path / "store")
    refused = call(*line)
    assert refused.exit_code == 2
    assert said in " ".join(refused.output.split())
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
@pytest.mark.each_change
def test_an_edit_is_animated_and_resumed(trained: Trained, tmp_path: Path, arguments: Arguments) -> None:
    # an untrained generator's picture is no face: so little of the edit leaves the photograph as it is
    changes = [f"edit.flow={trained.flow}", "edit.strength=0.001", *EDITING]
    line: list[str | Path] = [*arguments(tmp_path / "store", tmp_path / "out", *changes), "--edit", "age=+20"]
    planned = call(*line, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert "edit: tune generator" in planned.output
    assert not (tmp_path / "store").exists()
    first = call(*line)
    assert first.exit_code == 1, first.output  # one frame shows no face
    store = Store(str(tmp_path / "store"))
    (clip,) = [job for job in jobs_in(tmp_path / "store") if job.goal == "clip"]
    assert clip.edited is not None
    assert "age-plus-20" in clip.label
    picture = clip.edited.output("edit").read("edited")[0]
    assert picture.shape == read_image(sample_portrait()).shape
    made = clip.output("render").read("frames")
    # what the clip starts from is gone: the edit is made again, and then what read it
    clip.edited.output("edit").drop_array("edited")
    clip.output("portrait").uncommit()
    forget_models()
    second = call(*line)
    assert second.exit_code == 1, second.output
    np.testing.assert_array_equal(clip.output("render").read("frames"), made)
    assert "nothing to do" in call(*line, "--dry-run").output
    retried = call("retry", store.url)
    assert retried.exit_code == 0, retried.output
    status = call("status", store.url)
    assert clip.edited.label in status.output.replace("\n", "")
    assert "2 clips" in status.output


@pytest.mark.slow
def test_a_manifest_row_names_its_edit(
    trained: Trained, tmp_path: Path, driver: Path, small: list[str]
) -> None:
    manifest = tmp_path / "clips.csv"
    rows = [f"{sample_portrait()},{driver},{edit},x,y" for edit in ("age=+20; beard=0.8", "")]
    manifest.write_text("\n".join(["portrait,video,edit,licence,consent", *rows]) + "\n")
    line: list[str | Path] = [
        "dataset",
        "run",
        manifest,
        "--store",
        tmp_path / "store",
        "--out",
        tmp_path / "out",
    ]
    ended = call(*line, *sets(f"edit.flow={trained.flow}", "edit.strength=0.001", *small, *EDITING))
    assert ended.exit_code == 1, ended.output  # one frame shows no face
    assert "2 held" in ended.output
    store = Store(str(tmp_path / "store"))
    assert len(store.units("edited")) == 1
    assert len(store.units("reenactment")) == 2
    folders = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert any("age-plus-20" in name for name in folders)
    assert len(folders) == 2
