"""The pipeline ``subjects``: a cell of table 3 in the store, resumed, and the table of several cells."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from flows.reenact import run_stages
from portrait_core.attribute_editing.conditions import Condition, Conditions
from portrait_core.attribute_editing.latent_edits import StyleFlowModel
from portrait_core.attribute_editing.settings import StyleFlowArchitecture
from portrait_core.attribute_editing.styleflow import StyleFlow
from portrait_core.attribute_editing.styleflow_files import save_styleflow
from portrait_core.errors import ColumnError, InputError, ModelFileError
from portrait_core.generators import load_generator
from portrait_core.metrics.consistency import draw_views
from portrait_core.model_files.needs import weight_file
from portrait_core.pipeline import Job
from portrait_core.runtime.model_cache import forget_models
from portrait_core.settings import load_settings
from tasks.ingest_subjects import ingest_subjects
from tasks.stages.subjects import SUBJECTS
from tasks.table3 import DETAILS, SHEET, TABLE, deliver_table3, read_consistency, table3_jobs
from tests import official_flow, published_pickle
from tests.flows.conftest import markers

ARRAYS = tuple(item.name for item in SUBJECTS.writes)
COMMON = [
    "consistency.subjects=4",
    "consistency.size=128",
    "runner.prefect=never",
    "runner.workers=2",
    "runner.frames_per_task=2",
    "runner.pack=false",
    "device=cpu",
]


def _job(store: Path, *changes: str) -> Job:
    return ingest_subjects(str(store), load_settings("embedded", [*COMMON, *changes]))


def _computed(job: Job) -> int:
    return run_stages(job)["subjects"].frames_done


def _arrays(job: Job) -> dict[str, NDArray[np.generic]]:
    return job.output("subjects").read_together(ARRAYS)


@pytest.fixture
def untrained(tiny_generator: Path) -> list[str]:
    """A generator that shows no faces, in seconds."""
    return [f"generator.weights={tiny_generator}", "generator.samples=8", "generator.importance_samples=6"]


@pytest.mark.parametrize("gan", ["3d", pytest.param("2d", marks=pytest.mark.slow)])
def test_a_cell_resumes_to_the_same_bits_after_half_of_its_markers_are_gone(
    tmp_path: Path, untrained: list[str], gan: str
) -> None:
    rest = untrained if gan == "3d" else ["consistency.gan=2d", "consistency.edit=facial_hair"]
    job = _job(tmp_path / "store", *rest)
    assert job.unit_of("subjects") == ("evaluation", job.weights["generator"][:16])
    assert _computed(job) == 4
    first = _arrays(job)
    assert first["views"].shape == (4, 2, 128, 128, 3)
    assert first["w"].shape == (4, 1, {"3d": 32, "2d": 192}[gan])
    assert np.array_equal(first["asked"], draw_views(4))
    result = read_consistency(job)
    assert result.found == {"3d": 0, "2d": 4}[gan]  # what shows no face has NaN, and is counted
    assert np.isnan(first["identity"]).all() == (gan == "3d")
    gone = sorted(markers(tmp_path / "store"))[::2]
    assert gone
    for name in gone:
        (tmp_path / "store" / name).unlink()
    forget_models()
    assert _computed(job) == len(gone)
    again = _arrays(job)
    for name in ARRAYS:
        np.testing.assert_array_equal(again[name], first[name], err_msg=name)
    assert "subjects" not in run_stages(job)  # nothing is left to do


def test_people_are_the_same_in_any_batch_and_range(tmp_path: Path, untrained: list[str]) -> None:
    one, other = (
        _job(tmp_path / name, *untrained, f"consistency.batch={batch}", f"runner.frames_per_task={frames}")
        for name, batch, frames in (("a", 1, 4), ("b", 3, 3))
    )
    assert one.stage_keys == other.stage_keys
    assert _computed(one) == _computed(other) == 4
    there, here = _arrays(one), _arrays(other)
    for name in ARRAYS:
        np.testing.assert_array_equal(there[name], here[name], err_msg=name)


def test_what_cannot_be_asked_is_said_before_any_work(tmp_path: Path, tiny_generator: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(ColumnError, match=r"there is no StyleFlow for .*; set edit\.flow=FILE"):
        _job(store, "consistency.edit=age", "edit.flow=null")
    with pytest.raises(
        InputError, match=r"288 numbers, those of .* have 32: it belongs to another generator"
    ):
        _job(store, "consistency.edit=age", f"generator.weights={tiny_generator}")
    with pytest.raises(ValueError, match=r"holds no 2D generator; set consistency\.generator_2d=FILE"):
        _job(store, "consistency.gan=2d", f"consistency.generator_2d={tiny_generator}")
    with pytest.raises(InputError, match=r"cannot edit yaw and pitch.*consistency\.flow_2d=FILE"):
        _job(
            store,
            "consistency.gan=2d",
            "consistency.generator_2d=models/embedded_2d.safetensors",
            f"consistency.flow_2d={_flow_without_pose(tmp_path)}",
        )
    assert not store.exists()


def _flow_without_pose(folder: Path) -> Path:
    """A StyleFlow of the 2D generator's width that knows age alone."""
    made = StyleFlow(StyleFlowArchitecture(width=192, hidden=(4,), context=1))
    path = folder / "age.safetensors"
    save_styleflow(StyleFlowModel(made, Conditions(attributes=(Condition(name="age", high=80.0),))), path)
    return path


def test_what_changes_a_cell_changes_its_key(tmp_path: Path, untrained: list[str]) -> None:
    def key(*changes: str) -> str:
        return _job(tmp_path, *untrained, *changes).stage_keys["subjects"]

    plain = key()
    for change in ("seed=1", "consistency.truncation=0.5", "consistency.detail=64", "consistency.subjects=5"):
        assert key(change) != plain
    for change in ("consistency.batch=1", "runner.workers=1", "consistency.flow_2d=null", "edit.flow=null"):
        assert key(change) == plain  # no flow moves a latent where only the camera moves


@pytest.mark.slow
def test_the_table_of_both_generators(tmp_path: Path) -> None:
    changes = [*COMMON, "generator.samples=8", "consistency.neural_resolution=64", "consistency.size=256"]
    table = table3_jobs(str(tmp_path / "store"), load_settings("embedded", changes), columns=("", "glasses"))
    assert set(table.jobs) == {(gan, column) for gan in ("2d", "3d") for column in ("", "glasses")}
    assert not table.missing
    plain, edited = table.jobs["3d", ""], table.jobs["3d", "glasses"]
    for job in table.jobs.values():
        assert _computed(job) == 4
    asked = [_arrays(job)["asked"] for job in table.jobs.values()]
    assert all(np.array_equal(asked[0], one) for one in asked)
    assert not np.array_equal(_arrays(plain)["w"], _arrays(edited)["w"])
    cells = deliver_table3(table, tmp_path / "out")
    assert [cell.found for cell in cells] == [4, 4, 4, 4]
    assert "none" not in (tmp_path / "out" / TABLE).read_text()
    assert len(pd.read_parquet(tmp_path / "out" / DETAILS)) == 4
    assert (tmp_path / "out" / SHEET).stat().st_size > 10_000
    shutil.rmtree(tmp_path / "out")


@pytest.mark.slow
def test_people_are_labelled_by_their_pictures_and_a_table(tmp_path: Path) -> None:
    rows = tmp_path / "people.csv"
    rows.write_text("picture,beard,hair_length,hair_volume,fringe,hair_light,skin_dark,brows,eyes_light,")
    rows.write_text(rows.read_text() + "lips_dark,smile,glasses\n0" + ",0.5" * 11 + "\n")
    common = ["consistency.gan=2d", "consistency.subjects=1", "consistency.edit=age"]
    job = _job(tmp_path / "store", *common, f"consistency.labels={rows}")
    assert job.inputs["labels"]
    assert "age_gender" in job.weights
    assert _computed(job) == 1
    rows.write_text(rows.read_text().replace("0.5", "0.25"))
    other = _job(tmp_path / "store", *common, f"consistency.labels={rows}")
    assert other.stage_keys != job.stage_keys


@pytest.mark.slow
def test_published_networks_edit_and_turn_the_2d_generators_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("PORTRAIT_MODELS", str(folder))
    changes = ["consistency.gan=2d", "consistency.edit=glasses", "consistency.subjects=2", "device=cpu"]
    shipped = "evaluation.identity=shipped"
    settings = load_settings("paper", [*changes, shipped, "runner.prefect=never"])
    with pytest.raises(ModelFileError, match=r"stylegan2-ffhq-1024x1024\.pkl"):
        ingest_subjects(str(tmp_path / "store"), settings)
    network = folder / "stylegan2-ffhq-1024x1024.pkl"
    published_pickle.write_stylegan2(network, z_dim=512, w_dim=512)
    torch.save(official_flow.flow_state(StyleFlowArchitecture()), folder / "modellarge10k.pt")
    job = ingest_subjects(str(tmp_path / "store"), settings)
    assert "phi" not in job.weights  # nor any other file that people do not need
    assert _computed(job) == 2
    rows = load_generator(weight_file(job.settings, "generator"), kind="stylegan2").settings.num_ws
    assert _arrays(job)["w"].shape == (2, rows, 512)
    unlabelled = settings.consistency.model_copy(update={"labels": "latent"})
    with pytest.raises(InputError, match=r"set consistency\.labels=photograph"):
        ingest_subjects(str(tmp_path / "store"), settings.model_copy(update={"consistency": unlabelled}))
    table = table3_jobs(str(tmp_path / "store"), settings, ["3d"], ["age"])
    assert table.missing["3d", "age"].startswith("there is no StyleFlow for eg3d")
