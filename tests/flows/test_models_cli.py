"""``portrait models import`` and ``check`` as a user runs them."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from flows.cli.main import app
from flows.cli.outcome import BAD_INPUT, OK
from portrait_core.generators import load_generator, save_generator
from portrait_core.generators.published import sha256
from tests import published_pickle
from tests.portrait_core import tiny

ROOT = Path(__file__).parents[2]


def invoke(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", *map(str, arguments)], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, " ".join(result.output.split())


def about(weights: Path) -> dict[str, Any]:
    return json.loads(weights.with_suffix(".json").read_text())


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "faces.pkl"
    published_pickle.write_stylegan2(path)
    return path


def test_the_real_command_imports_and_checks(tmp_path: Path) -> None:
    """EG3D, in processes of its own: import, check, and the result where a run takes its generator."""
    network, out = tmp_path / "ffhq-128.pkl", tmp_path / "converted"
    written = published_pickle.write_eg3d(network, density_reg=0.25, depth_jitter="auto")
    command = [sys.executable, "-m", "flows.cli.main", "models"]
    environment = {**os.environ, "COLUMNS": "200"}

    def run(*arguments: str | Path) -> str:
        return subprocess.run(
            [*command, *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    said = run("import", network, "--out", out)
    weights = out / "ffhq-128.safetensors"
    assert sorted(path.name for path in out.iterdir()) == ["ffhq-128.json", weights.name]
    for words in (
        "TriPlaneGenerator: tri-plane generator, 128 x 128 pixels",
        "mapping_kwargs (num_layers 2)",
        "depth_jitter auto",
        "NVIDIA source code licence, non-commercial",
        sha256(weights),
        sha256(network),
        f"--set generator.weights={weights}",
    ):
        assert words in said
    assert "OK" in run("check", weights, network)
    loaded = load_generator(weights)
    for name, value in written.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


def test_import_notes_everything_and_is_deterministic(network: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        assert invoke("import", network, "--out", tmp_path / folder)[0] == OK
    weights = tmp_path / "one" / "faces.safetensors"
    for name in ("faces.safetensors", "faces.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    noted = about(weights)
    assert noted["sha256"] == sha256(weights)
    assert noted["source"] == "faces.pkl"
    assert noted["source_sha256"] == sha256(network)
    assert noted["class"] == "Generator"
    assert noted["kind"] == "stylegan2"
    assert noted["constructor"] == published_pickle.STYLEGAN2_KWARGS
    assert noted["settings"] == load_generator(weights, kind="stylegan2").settings.model_dump(mode="json")


def test_half_and_licence(network: Path, tmp_path: Path) -> None:
    code, said = invoke("import", network, "--out", tmp_path, "--half", "--licence", "CC0")
    weights = tmp_path / "faces.safetensors"
    assert code == OK
    assert "float16" in said
    assert (about(weights)["precision"], about(weights)["licence"]) == ("float16", "CC0")
    z = torch.randn(1, 12)
    loaded, exact = load_generator(weights, kind="stylegan2"), published_pickle.write_stylegan2(network)
    assert torch.allclose(loaded(z), exact(z), atol=0.05)
    assert all(value.dtype == torch.float32 for value in loaded.state_dict().values())
    assert invoke("check", weights)[0] == OK


def test_default_folder_is_in_the_data_folder(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTRAIT_DATA", str(tmp_path))
    assert invoke("import", network)[0] == OK
    assert (tmp_path / "weights" / "faces.safetensors").is_file()


class Attack:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


def test_a_hostile_file_is_refused(tmp_path: Path) -> None:
    path, canary = tmp_path / "hostile.pkl", tmp_path / "canary"
    path.write_bytes(pickle.dumps({"G_ema": Attack(canary)}))
    for command in (("import", path, "--out", tmp_path / "out"), ("check", path)):
        code, said = invoke(*command)
        assert code == BAD_INPUT
        assert "posix.system, which is not a name known as safe" in said or "nt.system" in said
    assert not canary.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "is empty; download it again"),
        (b"PK\3\4", "zip archive, as torch.save writes. Expected a network file (.pkl)"),
        (b"<!DOCTYPE html>", "web page or a pointer"),
        (b"some text", "cannot read"),
        (pickle.dumps({"G": 1, "D": 2}), "holds no network 'G_ema'; it holds G, D"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "file.pkl"
    if content is not None:
        path.write_bytes(content)
    code, said = invoke("import", path, "--out", tmp_path / "out")
    assert code == BAD_INPUT
    assert words in said


def test_options_that_are_not_implemented_are_named(tmp_path: Path) -> None:
    path = tmp_path / "network.pkl"
    changes: list[tuple[dict[str, Any], str]] = [
        ({"synthesis_kwargs": {"architecture": "resnet"}}, "architecture='resnet'; only 'skip'"),
        ({"magnitude_ema_beta": 0.5}, "magnitude_ema_beta=0.5, which is not known"),
        ({"mapping_kwargs": {"activation": "relu"}}, "mapping_kwargs activation='relu'"),
        ({"img_resolution": 48}, "img_resolution must be a power of two"),
        ({"img_resolution": 32}, "do not fit its settings: synthesis.b32"),
    ]
    for change, words in changes:
        published_pickle.write_stylegan2(path, refused=True, **change)
        code, said = invoke("check", path)
        assert code == BAD_INPUT
        assert words in said
    published_pickle.write_eg3d(path, ray_start="auto")
    assert "rendering option ray_start is 'auto'" in invoke("check", path)[1]


def test_check_says_what_is_wrong(network: Path, tmp_path: Path) -> None:
    invoke("import", network, "--out", tmp_path)
    weights = tmp_path / "faces.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    code, said = invoke("check", weights, network)
    assert code == BAD_INPUT
    assert "it was changed or cut short; import it again" in said
    assert "OK" in said  # the other file is still checked
    weights.with_suffix(".json").unlink()
    weights.write_bytes(good[: len(good) // 2])
    assert "cannot read a generator" in invoke("check", weights)[1]
    weights.write_bytes(good)
    code, said = invoke("check", weights)
    assert code == OK
    assert "no digest noted beside it" in said


def test_a_folder_that_cannot_be_written(network: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, said = invoke("import", network, "--out", tmp_path / "file")
    assert code == BAD_INPUT
    assert "cannot write to" in said
    code, said = invoke("import", network, "--out", tmp_path / "out")
    weights = tmp_path / "out" / "faces.safetensors"
    weights.unlink()
    assert "is no file" in invoke("check", weights)[1]
    weights.mkdir()
    code, said = invoke("import", network, "--out", tmp_path / "out")
    assert code == BAD_INPUT
    assert [path.name for path in weights.parent.glob(".*")] == []


def test_the_two_kinds_are_not_taken_for_each_other(network: Path, tmp_path: Path) -> None:
    invoke("import", network, "--out", tmp_path)
    with pytest.raises(ValueError, match=r"holds a StyleGAN2 \(2D\) generator; expected a tri-plane"):
        load_generator(tmp_path / "faces.safetensors")
    path = tmp_path / "tiny.safetensors"
    save_generator(tiny.generator(), path)
    with pytest.raises(ValueError, match="holds a tri-plane generator; expected a StyleGAN2"):
        load_generator(path, kind="stylegan2")


def test_embedded_generator_passes() -> None:
    code, said = invoke("check", ROOT / "data" / "models" / "embedded_generator.safetensors")
    assert code == OK
    assert "digest as noted" in said
