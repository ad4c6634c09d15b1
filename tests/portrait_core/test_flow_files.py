"""Files of flows: ours, the published ones, and those that are neither."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from portrait_core.attribute_editing.conditions import PUBLISHED_CONDITIONS, Condition, Conditions
from portrait_core.attribute_editing.latent_edits import StyleFlowModel
from portrait_core.attribute_editing.settings import SolverSettings, StyleFlowArchitecture
from portrait_core.attribute_editing.styleflow import StyleFlow
from portrait_core.attribute_editing.styleflow_files import (
    is_styleflow_file,
    load_published_styleflow,
    load_styleflow,
    published_shapes,
    save_styleflow,
    styleflow_metadata,
)
from portrait_core.errors import ModelFileError
from portrait_core.model_files.check import check_model, identify_model
from portrait_core.model_files.importing import import_model
from portrait_core.weights.registry import MODELS
from tests import official_flow

SCHEMA = Conditions(attributes=tuple(Condition(name=name, mean=0.5) for name in ("hair", "beard", "glasses")))


class Attack:
    """Runs a shell command when an ordinary reader meets it."""

    def __init__(self, canary: Path) -> None:
        self.command = f"touch {canary}"

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def own() -> StyleFlowModel:
    flow = official_flow.tiny().float()
    flow.solver = SolverSettings(method="rk4", steps=6)
    return StyleFlowModel(flow, SCHEMA)


def test_ours_there_and_back(tmp_path: Path) -> None:
    made, path = own(), tmp_path / "flow.safetensors"
    save_styleflow(made, path, {"licence": "Apache-2.0", "generator": "abc"})
    flow, conditions, reader = load_styleflow(path)
    assert conditions == SCHEMA
    assert reader is None
    assert flow.settings == made.flow.settings
    assert flow.solver == made.flow.solver
    assert not flow.training
    assert not any(parameter.requires_grad for parameter in flow.parameters())
    for name, value in made.flow.state_dict().items():
        assert torch.equal(flow.state_dict()[name], value) or name.endswith("_num_evals"), name
    w, labels = torch.randn(2, 1, 6), torch.randn(2, 3)
    assert torch.equal(flow(w, labels), made.flow(w, labels))
    assert styleflow_metadata(path)["generator"] == "abc"
    first = path.read_bytes()
    save_styleflow(StyleFlowModel(flow, conditions), path, {"generator": "abc", "licence": "Apache-2.0"})
    assert path.read_bytes() == first
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def test_what_is_not_saved(tmp_path: Path) -> None:
    made = own()
    with pytest.raises(ValueError, match="takes 3 numbers and its conditions name 17"):
        save_styleflow(StyleFlowModel(made.flow, PUBLISHED_CONDITIONS), tmp_path / "x.safetensors")
    made.flow.get_parameter("chain.0.bias").data[0] = torch.nan
    with pytest.raises(ValueError, match=r"chain\.0\.bias has values that are not finite"):
        save_styleflow(made, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, m: t.pop("chain.0.bias"), r"chain\.0\.bias is missing"),
        (lambda t, m: t.update({"chain.0.bias": torch.zeros(7)}), r"has shape \[7\], expected \[6\]"),
        (lambda t, m: t["chain.2.running_var"].fill_(-1), "running_var has values below 0"),
        (lambda t, m: m.update(attribute_flow="{"), "holds no settings of a StyleFlow"),
        (lambda t, m: m.clear(), "holds no settings of a StyleFlow"),
        (
            lambda t, m: m.update(attribute_flow=m["attribute_flow"].replace("hidden", "hid")),
            "save the StyleFlow",
        ),
        (
            lambda t, m: m.update(
                attribute_flow=m["attribute_flow"].replace('width\\":6', 'width\\":99999999')
            ),
            "has shape",
        ),
    ],
)
def test_what_is_no_file_of_ours(tmp_path: Path, change: Any, words: str) -> None:
    path = tmp_path / "flow.safetensors"
    save_styleflow(own(), path)
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    tensors = load_file(path)
    change(tensors, metadata)
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(ValueError, match=words):
        load_styleflow(path)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "flow.safetensors"
    with pytest.raises(ValueError, match="cannot read a StyleFlow"):
        load_styleflow(path)
    save_styleflow(own(), path)
    whole = path.read_bytes()
    for data in (b"", b"junk", whole[:200], whole[:-9]):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="cannot read a StyleFlow"):
            load_styleflow(path)
        assert not is_styleflow_file(path)


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return official_flow.flow_state(StyleFlowArchitecture())


@pytest.mark.parametrize("zipped", [True, False])
def test_published_weights(tmp_path: Path, published: dict[str, torch.Tensor], zipped: bool) -> None:
    path = tmp_path / "modellarge10k.pt"
    torch.save(published, path, _use_new_zipfile_serialization=zipped)
    flow, conditions, reader = load_styleflow(path)
    assert conditions == PUBLISHED_CONDITIONS
    assert reader is None
    assert len(published_shapes()) == len(published) == 42
    for name, value in published.items():
        assert torch.equal(flow.state_dict()[name], value) or name.endswith("_num_evals"), name
    assert sum(parameter.numel() for parameter in flow.parameters()) == pytest.approx(1.69e6, rel=0.01)
    found = check_model(path, MODELS["styleflow"])
    assert "512 dimensions under 17 attributes (light_0" in found.content
    assert found.digest == "no digest is known of it"
    assert MODELS["styleflow"].licence.startswith("CC BY-NC-SA 4.0")
    ((model, target, _),) = import_model(path, MODELS["styleflow"], str(tmp_path / "models"))
    assert (model.name, Path(target).name) == ("styleflow", "modellarge10k.pt")


def test_what_is_no_published_flow(tmp_path: Path, published: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "modellarge10k.pt"
    layer = "chain.1.odefunc.diffeq.layers."
    for change, words in (
        ({"chain.0.bias": torch.zeros(256)}, r"chain\.0\.bias has shape \[256\], expected \[512\]"),
        ({layer + "6._layer.bias": torch.zeros(512)}, r"layers\.6\._layer\.bias: it is another network's"),
        ({"chain.2.running_var": -torch.ones(512)}, "values below 0"),
        ({"chain.2.bias": torch.full((512,), torch.inf)}, "not finite"),
        ({"chain.2.bias": None}, "NoneType"),
    ):
        torch.save(published | change, path)
        with pytest.raises(ModelFileError, match=words) as caught:
            load_published_styleflow(path)
        assert "RameenAbdal/StyleFlow" in str(caught.value)
        assert "CC BY-NC-SA 4.0" in str(caught.value)
    torch.save({name: value for name, value in published.items() if "layers.5" not in name}, path)
    with pytest.raises(ModelFileError, match=r"layers\.5\._layer\.weight is missing.* and 2 more"):
        load_styleflow(path)
    torch.save({"state_dict": published}, path)
    with pytest.raises(ModelFileError, match="cannot be used"):
        load_styleflow(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_files(tmp_path: Path, zipped: bool) -> None:
    path, canary = tmp_path / "modellarge10k.pt", tmp_path / "canary"
    for content in (
        Attack(canary),
        {"chain.0.weight": Attack(canary)},
        StyleFlow(StyleFlowArchitecture(width=2)),
    ):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ModelFileError, match="no checkpoint that can be read safely"):
            load_styleflow(path)
        assert not canary.exists()
    buffer = io.BytesIO()
    pickle.dump(Attack(canary), buffer)
    for name in ("modellarge10k.pt", "flow.safetensors"):
        (tmp_path / name).write_bytes(buffer.getvalue())
        with pytest.raises(ValueError, match=r"modellarge10k|cannot read a StyleFlow"):
            load_styleflow(tmp_path / name)
        assert not canary.exists()


def test_a_flow_of_ones_own_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_styleflow(own(), path, {"licence": "Apache-2.0"})
    model = identify_model(path)
    assert model is MODELS["styleflow"]
    found = check_model(path, model)
    assert "6 dimensions under 3 attributes (hair, beard, glasses)" in found.content
    assert found.licence == "Apache-2.0"
    ((_, target, report),) = import_model(path, model, str(tmp_path / "models"))
    assert Path(target).name == "mine.safetensors"
    assert Path(target).read_bytes() == path.read_bytes()
    assert report.sound
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert identify_model(tmp_path / "other.safetensors") is None
    assert identify_model(tmp_path / "none.safetensors") is None
