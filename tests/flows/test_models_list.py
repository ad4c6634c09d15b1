"""``portrait models list``, ``where``, ``check`` and ``import`` of files that are no generators; the look at
weights before a run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from flows.cli.main import app
from flows.cli.outcome import BAD_INPUT, OK
from portrait_core.attribute_editing.conditions import Condition, Conditions
from portrait_core.attribute_editing.latent_edits import StyleFlowModel
from portrait_core.attribute_editing.settings import StyleFlowArchitecture
from portrait_core.attribute_editing.styleflow_files import save_styleflow
from portrait_core.weights.registry import MODELS
from tests import official_files, official_flow
from tests.flows.conftest import Arguments


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PORTRAIT_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


def invoke(*arguments: str | Path, columns: int = 100) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": str(columns)})
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_list_fits_a_hundred_columns(folder: Path) -> None:
    code, said = invoke("models", "list")
    assert code == OK
    lines = said.splitlines()
    assert max(map(len, lines[: 2 * len(MODELS)])) <= 100
    for name, model in MODELS.items():
        row = next(i for i, line in enumerate(lines) if line.split()[:1] == [name])
        assert lines[row].split()[-2:] == [
            "yes" if model.commercial else "no",
            "no" if model.place == "user" else "yes",
        ]
        assert model.file in lines[row + 1]
    assert "models" in said


def test_where_says_what_was_looked_at(folder: Path) -> None:
    folder.mkdir()
    official_files.write_flame_masks(folder / "FLAME_masks.pkl")
    code, said = invoke("models", "where")
    assert code == OK
    assert f"models folder: {folder}" in said
    assert f"flame_masks: found {folder / 'FLAME_masks.pkl'}" in said
    line = next(line for line in said.splitlines() if line.startswith("arcface:"))
    for part in (folder / "w600k_r50.onnx", folder / "buffalo_l.zip", MODELS["arcface"].source):
        assert str(part) in line


def test_import_and_check(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "given"
    source.mkdir()
    official_files.write_flame(source / "generic_model.pkl")
    official_files.write_landmark_embedding(source / "landmark_embedding.npy")
    official_files.write_buffalo(source / "buffalo_l.zip")
    for name in ("generic_model.pkl", "buffalo_l.zip"):
        code, said = invoke("models", "import", source / name, columns=300)
        assert code == OK
        assert f"now at {folder}" in said
        assert "licence: " in said
    code, said = invoke("models", "check", "flame", folder / "w600k_r50.onnx", columns=300)
    assert code == OK
    assert "a FLAME head of 156 vertices, 308 triangles" in said
    assert "not what others report of the published file" in said
    code, said = invoke("models", "check", source / "landmark_embedding.npy", columns=300)
    assert code == BAD_INPUT
    assert "WRONG" in said
    assert "NOT the published file" in said
    code, said = invoke("models", "check", "deca", "vgg16", "flame_masks", columns=300)
    assert code == BAD_INPUT
    assert "deca_model.tar" in said
    assert "FLAME_masks.pkl" in said
    assert invoke("models", "import", tmp_path / "epoch_20.pth")[0] == BAD_INPUT


def test_flows_of_both_kinds(folder: Path, tmp_path: Path) -> None:
    published, own = tmp_path / "modellarge10k.pt", tmp_path / "mine.safetensors"
    torch.save(official_flow.flow_state(StyleFlowArchitecture()), published)
    conditions = Conditions(attributes=tuple(Condition(name=name) for name in ("hair", "beard", "age")))
    save_styleflow(StyleFlowModel(official_flow.tiny().float(), conditions), own, {"licence": "Apache-2.0"})
    for file, licence in ((published, MODELS["styleflow"].licence), (own, "Apache-2.0")):
        code, said = invoke("models", "import", file, columns=300)
        assert code == OK
        assert f"now at {folder / file.name}; licence: {licence}" in said
        code, said = invoke("models", "check", folder / file.name, columns=300)
        assert code == OK
        assert "a StyleFlow network of" in said
    code, said = invoke("models", "where")
    assert f"styleflow: found {folder / published.name}" in said
    torch.save({"chain.0.bias": torch.zeros(3)}, published)
    code, said = invoke("models", "check", published, columns=300)
    assert code == BAD_INPUT
    assert "StyleFlow does not fit" in said


class Attack:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def test_hostile_files_are_not_imported(folder: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for name in (
        "generic_model.pkl",
        "FLAME_masks.pkl",
        "deca_model.tar",
        "epoch_20.pth",
        "vgg16-397923af.pth",
    ):
        path = tmp_path / name
        path.write_bytes(pickle.dumps({"face": Attack(canary), "lips": 1}, 2))
        for command in ("import", "check"):
            code, said = invoke("models", command, path, columns=300)
            assert code == BAD_INPUT
            assert name in said
    assert not canary.exists()
    assert not folder.exists()


def test_a_run_stops_before_any_work(folder: Path, tmp_path: Path, arguments: Arguments) -> None:
    """Neither the portrait nor the video is looked at, nothing is written."""
    store, out = tmp_path / "store", tmp_path / "out"
    command = ["--profile", "paper", "--portrait", "none.png", "--video", "none.mp4"]
    code, said = invoke("reenact", *command, "--store", store, "--out", out, columns=300)
    assert code == BAD_INPUT
    assert "9 files of weights are missing" in said
    for name in ("deca", "flame", "eg3d", "deep3d", "vgg16"):
        assert MODELS[name].file in said
        assert MODELS[name].licence in said
        assert f"`portrait models check {name}`" in said
    assert "none.png" not in said
    assert not store.exists()
    assert not out.exists()


def test_commercial_runs(folder: Path, tmp_path: Path, arguments: Arguments) -> None:
    command = arguments(tmp_path / "store", tmp_path / "out", "generator.weights=/x/ffhq512-128.safetensors")
    code, said = invoke(*command, "--commercial", columns=300)
    assert code == BAD_INPUT
    assert "a commercial run must not use these weights: ffhq512-128.pkl (NVIDIA" in said
    assert not (tmp_path / "store").exists()
    Image.new("RGB", (40, 40)).save(tmp_path / "tiny.png")
    places: list[str | Path] = [
        "--video",
        "none.mp4",
        "--store",
        tmp_path / "store",
        "--out",
        tmp_path / "out",
    ]
    code, said = invoke("reenact", "--commercial", "--portrait", tmp_path / "tiny.png", *places)
    assert code == BAD_INPUT
    assert "40x40 pixels" in " ".join(
        said.split()
    )  # the embedded weights were allowed: the inputs are looked at
