"""The registry, finding files in folders and buckets, and the look at them before a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from portrait_core.errors import ModelFileError
from portrait_core.generators import load_generator, save_generator
from portrait_core.model_files.check import check_model
from portrait_core.model_files.importing import import_generator, import_model
from portrait_core.model_files.needs import (
    LANDMARK_MODELS,
    SEGMENTATION_MODEL,
    check_models,
    needed_models,
    weight_file,
    weight_sources,
)
from portrait_core.settings import Settings, key_settings, load_settings
from portrait_core.template.registry import FACE_MODELS
from portrait_core.weights import locate
from portrait_core.weights.locate import find, models_folder, require
from portrait_core.weights.registry import MODELS, Digest, by_file
from tests import official_files, published_pickle
from tests.portrait_core import tiny

PAPER = (
    "ffhqrebalanced512-128.pkl",
    "deca_model.tar",
    "generic_model.pkl",
    "landmark_embedding.npy",
    "head_template.obj",
    "uv_face_eye_mask.png",
    "epoch_20.pth",
    "similarity_Lm3D_all.mat",
    "vgg16-397923af.pth",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models folder, and a cache of its own."""
    monkeypatch.setenv("PORTRAIT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.fixture
def bucket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A models bucket, in memory."""
    url = "memory://weights/models"
    monkeypatch.setenv("PORTRAIT_MODELS", url)
    monkeypatch.setattr(locate, "_verified", set())
    yield url
    fsspec.filesystem("memory").rm("/weights", recursive=True)


def put(url: str, data: bytes) -> None:
    with fsspec.open(url, "wb") as file:
        file.write(data)


def test_every_entry_is_whole() -> None:
    assert len({model.file for model in MODELS.values()}) == len(MODELS)
    for model in MODELS.values():
        assert model.source
        assert model.licence
        assert model.needed_by
        assert by_file(model.file) is model
        restricted = any(word in model.licence for word in ("non-commercial", "research", "NC"))
        assert model.commercial is not restricted
        assert set(model.digest.sha256) <= set("0123456789abcdef")


def test_digests() -> None:
    known = Digest(sha256="8095348e", size=4)
    assert not known.differs(4, "8095348e" + "0" * 56, "")
    assert known.differs(5, "8095348e" + "0" * 56, "")
    assert known.differs(4, "9" * 64, "")
    assert Digest(md5="ab").differs(1, "", "cd")


def test_shipped_files_are_as_noted() -> None:
    for name, model in MODELS.items():
        if model.place != "user" and not model.generator:
            report = check_model(require([name])[name], model)
            assert report.sound
            assert "as published" in report.digest or "as noted" in report.digest or name == "embedded_head"


def test_every_missing_file_is_named_at_once(folder: Path) -> None:
    with pytest.raises(ModelFileError) as caught:
        require(["deca", "flame", "lpips", "arcface", "deca"])
    said = str(caught.value)
    assert said.startswith("3 files of weights are missing.")
    for name in ("deca", "flame", "arcface"):
        model = MODELS[name]
        line = next(line for line in said.splitlines() if line.startswith(model.file))
        for part in (model.source, model.licence, f"`portrait models check {name}`"):
            assert part in line
    assert str(folder) in said
    assert "PORTRAIT_MODELS" in said
    with pytest.raises(ValueError, match="there is no model dekka"):
        require(["dekka"])


def test_files_are_found_under_all_their_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ffhqrebalanced512-128.pkl", "buffalo_l.zip"):
        (folder / name).write_bytes(b"x")
    assert require(["eg3d"])["eg3d"].name == "ffhqrebalanced512-128.pkl"
    (folder / "ffhqrebalanced512-128.safetensors").write_bytes(b"x")
    assert require(["eg3d"])["eg3d"].suffix == ".safetensors"
    assert set(require(["arcface", "arcface_detector"]).values()) == {folder / "buffalo_l.zip"}
    (folder / "w600k_r50.onnx").write_bytes(b"x")
    assert require(["arcface"])["arcface"] == folder / "w600k_r50.onnx"
    (folder / "generic_model.pkl").mkdir()
    assert find("flame").where is None
    monkeypatch.setenv("PORTRAIT_MODELS", f"file://{folder}/")
    assert models_folder() == str(folder)
    monkeypatch.setenv("PORTRAIT_MODELS", "relative/folder")
    assert Path(models_folder()).is_absolute()
    monkeypatch.delenv("PORTRAIT_MODELS")
    monkeypatch.setenv("PORTRAIT_DATA", str(folder))
    assert models_folder() == str(folder / "weights")


def test_a_bucket_is_read_once(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("flame").where is None
    put(f"{bucket}/generic_model.pkl", b"first")
    copy = require(["flame"])["flame"]
    assert copy.read_bytes() == b"first"
    assert copy.name == "generic_model.pkl"
    assert tmp_path in copy.parents
    before = copy.stat().st_mtime_ns
    locate._verified.clear()
    assert require(["flame"])["flame"].stat().st_mtime_ns == before
    # altered in the cache: what another process left is not believed
    copy.write_bytes(b"fiRst")
    locate._verified.clear()
    assert require(["flame"])["flame"].read_bytes() == b"first"
    copy.write_bytes(b"cut")
    assert require(["flame"])["flame"].read_bytes() == b"first"
    copy.with_name("generic_model.pkl.json").write_text("[]")
    assert require(["flame"])["flame"].read_bytes() == b"first"
    put(f"{bucket}/generic_model.pkl", b"other content")
    assert require(["flame"])["flame"].read_bytes() == b"other content"
    assert [path.name for path in copy.parent.glob(".*")] == []


def test_a_bucket_that_cannot_be_reached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTRAIT_MODELS", "nosuchprotocol://weights")
    with pytest.raises(ValueError, match=r"cannot look into nosuchprotocol://weights.*PORTRAIT_MODELS"):
        require(["flame"])


def test_imports_are_read_first(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "buffalo_l.zip"
    official_files.write_buffalo(source)
    done = import_model(source, MODELS["arcface"], models_folder())
    assert {model.name for model, _, _ in done} == {"arcface", "arcface_detector"}
    assert (folder / "w600k_r50.onnx").read_bytes() == official_files.arcface_network()
    assert sorted(path.name for path in folder.iterdir()) == ["det_10g.onnx", "w600k_r50.onnx"]
    bad = tmp_path / "generic_model.pkl"
    bad.write_bytes(b"junk")
    with pytest.raises(ModelFileError, match=r"generic_model\.pkl"):
        import_model(bad, MODELS["flame"], models_folder())
    assert not (folder / "generic_model.pkl").exists()


def test_imports_into_a_bucket(bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "generic_model.pkl"
    official_files.write_flame(source)
    ((_, target, report),) = import_model(source, MODELS["flame"], models_folder())
    assert target == f"{bucket}/generic_model.pkl"
    assert "156 vertices" in report.content
    assert require(["flame"])["flame"].read_bytes() == source.read_bytes()


def test_what_settings_need(folder: Path) -> None:
    embedded = needed_models(Settings())
    assert set(embedded) == {
        "embedded_head",
        "face_detector",
        "face_landmarks",
        "iris_landmarks",
        "face_mesh_attention",
        "person_segmentation",
        "efficientnet",
        "embedded_generator",
        "face_recognition",
    }
    check_models(Settings())
    paper = needed_models(load_settings("paper"))
    shipped = (MODELS[name].file for name in ("embedded_head", "face_recognition"))
    measuring = {*LANDMARK_MODELS, SEGMENTATION_MODEL, *shipped}
    assert {MODELS[name].file for name in paper} == {*PAPER, *measuring, "vgg.pth"}
    assert needed_models(load_settings("paper", ["template.eyes=driven"])).keys() == paper.keys()
    edited = load_settings("embedded", ["edit.attributes=['age=+20']"])
    assert needed_models(edited).keys() - needed_models(Settings()).keys() == {"embedded_flow"}
    own = load_settings("embedded", ["generator.weights=/elsewhere/ffhq512-128.safetensors"])
    assert needed_models(own)["eg3d_ffhq"] == Path("/elsewhere/ffhq512-128.safetensors")


def test_the_generator_is_found_as_published_or_imported(folder: Path) -> None:
    paper = load_settings("paper")
    with pytest.raises(ModelFileError, match=r"ffhqrebalanced512-128\.pkl"):
        weight_file(paper, "generator")
    network = folder / "ffhqrebalanced512-128.pkl"
    published_pickle.write_eg3d(network)
    made = weight_file(paper, "generator")
    assert made.suffix == ".safetensors"
    assert made.parent != folder  # nothing is written beside what the user brought
    time = made.stat().st_mtime_ns
    assert weight_file(paper, "generator").stat().st_mtime_ns == time
    given = load_settings("paper", [f"generator.weights={network}"])
    assert weight_file(given, "generator") == made
    imported = import_generator(network, str(folder), half=False, licence="NVIDIA").weights
    assert weight_file(paper, "generator") == imported
    assert load_generator(imported).settings == load_generator(made).settings


def test_weights_by_what_they_are_for(folder: Path, tmp_path: Path) -> None:
    sources = weight_sources(load_settings("paper"))
    assert {name for name, source in sources.items() if isinstance(source, str)} == {
        *FACE_MODELS["deca"].files,
        "generator",
        "phi",
    }
    assert not any("flame2020" in str(source) for source in sources.values())
    own = load_settings("paper", [f"inversion.phi_weights={tmp_path}/vgg.pth", "template.eyes=driven"])
    assert weight_sources(own)["phi"] == tmp_path / "vgg.pth"
    assert "measuring_head" in sources  # its key is that of the measures alone
    assert "head" not in sources
    assert "head" in weight_sources(own)
    assert "measuring_head" not in weight_sources(own)
    assert "phi" not in weight_sources(Settings())


def test_the_look_before_a_run(folder: Path) -> None:
    paper = load_settings("paper")
    with pytest.raises(ModelFileError) as caught:
        check_models(paper)
    said = str(caught.value)
    assert said.startswith("profile paper: 9 files of weights are missing.")
    assert all(file in said for file in PAPER)
    for file in PAPER:
        (folder / file).write_bytes(b"x")
    check_models(paper)
    (folder / "head_template.obj").unlink()
    with pytest.raises(ModelFileError, match=r"1 file of weights is missing\.\nhead_template\.obj"):
        check_models(paper)


def test_commercial_runs_refuse_by_name(folder: Path, tmp_path: Path) -> None:
    check_models(load_settings("embedded", ["commercial=true"]))
    for file in PAPER:
        (folder / file).write_bytes(b"x")
    with pytest.raises(ModelFileError, match="a commercial run must not use these weights") as caught:
        check_models(load_settings("paper", ["commercial=true"]))
    said = str(caught.value)
    for file in PAPER:
        allowed = file in ("vgg16-397923af.pth", "similarity_Lm3D_all.mat")
        assert (file in said) is not allowed
    assert "NVIDIA source code licence, non-commercial" in said
    # a generator of the user's own: what its file, or the one beside it, says
    path = tmp_path / "mine.safetensors"
    settings = load_settings("embedded", [f"generator.weights={path}", "commercial=true"])
    for licence in (None, "NVIDIA source code licence, non-commercial", "CC BY-NC 4.0", "research only"):
        save_generator(tiny.generator(), path, metadata={"licence": licence} if licence else None)
        with pytest.raises(ModelFileError, match=licence or "states no licence"):
            check_models(settings)
    save_generator(tiny.generator(), path, metadata={"licence": "Apache-2.0"})
    check_models(settings)
    path.with_suffix(".json").write_text(json.dumps({"licence": "academic use"}))
    with pytest.raises(ModelFileError, match="academic use"):
        check_models(settings)
    head = load_settings("embedded", ["tracking.head=/x/flame2020.safetensors", "commercial=true"])
    with pytest.raises(ModelFileError, match=r"flame2020\.safetensors \(states no licence"):
        check_models(head)
    shutil.copy(path, tmp_path / "ffhq512-128.safetensors")
    renamed = [f"generator.weights={tmp_path}/ffhq512-128.safetensors", "commercial=true"]
    with pytest.raises(ModelFileError, match="ffhq512-128"):
        check_models(load_settings("embedded", renamed))


def test_commercial_does_not_change_keys() -> None:
    assert key_settings(load_settings("embedded", ["commercial=true"])) == key_settings(Settings())
