"""Attributes of synthetic people: exact labels, drawing in ranges, and the reader that labels a latent."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from portrait_core.attribute_editing import scene_attributes as scenes
from portrait_core.attribute_editing.conditions import Condition, Conditions
from portrait_core.attribute_editing.latent_edits import StyleFlowModel
from portrait_core.attribute_editing.latent_reader import LatentReader
from portrait_core.attribute_editing.scene_attributes import sample_scenes, scene_conditions, scene_labels
from portrait_core.attribute_editing.settings import StyleFlowArchitecture
from portrait_core.attribute_editing.styleflow import StyleFlow
from portrait_core.attribute_editing.styleflow_files import load_styleflow, save_styleflow, styleflow_metadata
from portrait_core.attribute_editing.styleflow_training import LabelledLatents
from portrait_core.errors import InputError
from portrait_core.face_model.head import MorphableHead
from portrait_core.generators import load_generator
from portrait_core.generators.scene_latents import APPEARANCE, N_EXPRESSION, N_LATENT, N_SHAPE, UNITS
from portrait_core.runtime.package_files import data_folder
from portrait_core.training import phenotypes
from portrait_core.training.scenes import HEAD_PATH
from tests import official_flow


def person(**appearance: float) -> Tensor:
    """The average person, but for some of its appearance."""
    z = torch.zeros(1, N_LATENT)
    for name, value in appearance.items():
        z[0, N_SHAPE + N_EXPRESSION + APPEARANCE.index(name)] = value
    return z


def label(name: str, z: Tensor) -> float:
    return float(scene_labels(z)[0, scene_conditions().index(name)])


@cache
def embedded() -> LabelledLatents:
    """People of the embedded generator."""
    z = sample_scenes(700, 0, seed=0)
    mapping = load_generator(data_folder() / "models" / "embedded_generator.safetensors").mapping
    with torch.no_grad():
        return LabelledLatents(mapping(z, None)[:, :1].contiguous(), scene_labels(z))


def test_labels_are_of_the_people() -> None:
    for attribute, appearance in scenes.SHARES.items():
        low, high = (person(**dict.fromkeys(appearance, value)) for value in (-scenes.SPAN, scenes.SPAN))
        assert (label(attribute, low), label(attribute, high)) == pytest.approx((0, 1), abs=1e-6)
        assert label(attribute, person()) == 0.5
        assert label("gender", low) == label("gender", high)
    assert label("glasses", person()) == 0
    assert label("glasses", person(glasses=scenes.GLASSES_WORN)) == 1
    assert label("age", person(hair_grey=2)) > label("age", person()) + 15
    assert label("age", person(hair_line=2)) > label("age", person()) + 8
    smiling = person()
    smiling[0, N_SHAPE : N_SHAPE + N_EXPRESSION] = 0
    assert label("smile", smiling) == pytest.approx(0.12)
    assert label("gender", person()) == pytest.approx(0.5072, abs=1e-6)
    assert label("age", person()) == pytest.approx(45, abs=0.1)


def test_labels_are_continuous() -> None:
    z = sample_scenes(64, 0, seed=1, truncation=1.0)
    conditions, labels = scene_conditions(), scene_labels(z)
    assert labels.shape == (64, len(conditions))
    assert labels.dtype == torch.float32
    step = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    step = 1e-3 * step / step.norm(dim=1, keepdim=True)
    width = torch.tensor([a.high - a.low for a in conditions.attributes])
    moved = (scene_labels(z + step) - labels) / width
    assert float(moved.abs().max()) < 1e-3
    back = (labels - scene_labels(z - step)) / width
    assert float((moved - back).abs().max()) < 1e-5  # smooth: the slope does not jump
    age = labels[:, conditions.index("age")]
    assert 10 < float(age.min()) < float(age.max()) < 110


def test_units_are_the_heads() -> None:
    assert list(UNITS) == MorphableHead.load(HEAD_PATH).expression_names


def test_directions_are_those_of_bodies_they_are_measured_on() -> None:
    """With people made by the committed directions the script finds and prints the committed numbers."""
    rng = np.random.default_rng(0)
    shape = rng.normal(size=(400, N_SHAPE))
    for name, digits in (("AGE", 2), ("GENDER", 4)):
        offset, direction = (getattr(scenes, f"{name}_{part}") for part in ("OFFSET", "DIRECTION"))
        value = offset + shape @ np.array(direction)
        noise = 0.3 * value.std() * rng.normal(size=400)
        found = phenotypes.regressed(shape[:300], value[:300], (shape[300:], (value + noise)[300:]))
        assert found.r2 == pytest.approx(1 / 1.09, abs=0.04)
        printed: dict[str, Any] = {}
        exec(phenotypes.constant(name, found, digits), printed)
        assert printed[f"{name}_OFFSET"] == offset
        assert printed[f"{name}_DIRECTION"] == direction


def test_ranges_are_the_whole() -> None:
    whole = sample_scenes(7, 10, seed=3)
    assert whole.shape == (7, N_LATENT)
    assert whole.dtype == torch.float32
    parts = [sample_scenes(count, start, seed=3) for count, start in ((2, 10), (0, 12), (5, 12))]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(sample_scenes(7, 10, seed=4), whole)
    assert len(whole.unique(dim=0)) == 7
    wide = sample_scenes(7, 10, seed=3, truncation=1.0)
    looks = slice(N_SHAPE + N_EXPRESSION, None)
    assert torch.allclose(whole[:, looks], 0.7 * wide[:, looks], atol=1e-6)
    assert torch.allclose(whole[:, :N_SHAPE], 0.85 * wide[:, :N_SHAPE], atol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sample_scenes(-1, 0, 0), "cannot draw -1 scenes"),
        (lambda: sample_scenes(1, 0, -2), "with seed -2"),
        (lambda: sample_scenes(1, 0, 0, 1.5), r"truncation 1\.5"),
        (lambda: scene_labels(torch.zeros(2, 512)), r"shape \[2, 512\], expected \[N, 120\]"),
        (lambda: LatentReader.fit(embedded(), embedded().at(torch.arange(1))), "evaluate on 1"),
        (
            lambda: LatentReader.fit(embedded(), LabelledLatents(torch.zeros(3, 1, 8), torch.zeros(3, 13))),
            "split",
        ),
    ],
)
def test_what_is_refused(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def test_the_reader_reads_people_it_has_not_seen() -> None:
    learnt, others = embedded().split(200)
    reader = LatentReader.fit(learnt, others)
    assert min(reader.r2) > 0.9
    assert reader.weakly_read(scene_conditions()) == ()
    read = reader.read(others.w)
    by_hand = 1 - (read - others.labels).square().mean(0) / others.labels.var(0, correction=0)
    assert reader.r2 == pytest.approx(by_hand.tolist(), abs=1e-4)
    assert torch.allclose(reader.read(others.w.repeat(1, 14, 1)), read, atol=1e-4)
    far = reader.read(100 * others.w)
    assert (far >= learnt.labels.amin(0)).all()
    assert (far <= learnt.labels.amax(0)).all()
    with pytest.raises(InputError, match=r"shape \[2, 1, 512\], expected \[batch, rows, 288\]"):
        reader.read(torch.zeros(2, 1, 512))


def test_the_reader_says_what_it_reads_weakly() -> None:
    learnt, others = embedded().split(200)
    rng = torch.Generator().manual_seed(0)

    def with_others(samples: LabelledLatents) -> LabelledLatents:
        """With one attribute that no latent knows, and one that does not vary."""
        unknown, still = torch.rand(len(samples), 1, generator=rng), torch.ones(len(samples), 1)
        return LabelledLatents(samples.w, torch.cat([samples.labels[:, :1], unknown, still], 1))

    reader = LatentReader.fit(with_others(learnt), with_others(others))
    conditions = Conditions(attributes=tuple(Condition(name=name) for name in ("age", "luck", "yaw")))
    assert reader.weakly_read(conditions) == ("luck", "yaw")
    assert reader.weakly_read(conditions.with_held({"yaw": 1})) == ("luck",)
    assert reader.r2[2] == 0
    assert reader.read(others.w)[:, 2].tolist() == [1] * 200
    with pytest.raises(InputError, match="to 3 attributes, the StyleFlow has 288 and 13"):
        reader.weakly_read(scene_conditions())


def read_flow() -> StyleFlowModel:
    learnt, others = embedded().split(200)
    conditions = scene_conditions().standardised(learnt.labels)
    flow = StyleFlow(StyleFlowArchitecture(width=288, hidden=(8,), context=len(conditions)))
    return StyleFlowModel(flow.eval(), conditions, LatentReader.fit(learnt, others))


def test_a_flow_file_keeps_its_reader(tmp_path: Path) -> None:
    made, path = read_flow(), tmp_path / "flow.safetensors"
    save_styleflow(made, path, {"generator": "embedded"})
    found = load_styleflow(path)
    assert made.reader is not None
    assert found.reader is not None
    assert found.reader.r2 == made.reader.r2
    for name, value in made.reader.tensors().items():
        assert torch.equal(found.reader.tensors()[name], value), name
    w = embedded().w[:4]
    assert torch.equal(found.reader.read(w), made.reader.read(w))
    first = path.read_bytes()
    save_styleflow(found, path, {"generator": "embedded"})
    assert path.read_bytes() == first
    assert json.loads(styleflow_metadata(path)["reader_r2"]) == list(made.reader.r2)


def test_a_file_without_a_reader_has_none(tmp_path: Path) -> None:
    """As files were before there were readers."""
    path = tmp_path / "flow.safetensors"
    save_styleflow(read_flow()._replace(reader=None), path)
    assert "reader_r2" not in styleflow_metadata(path)
    assert not any(name.startswith("reader") for name in load_file(path))
    assert load_styleflow(path).reader is None
    # metadata of a file with a reader
    save_styleflow(read_flow()._replace(reader=None), path, {"reader_r2": "[1.0]"})
    assert load_styleflow(path).reader is None
    conditions = Conditions(attributes=tuple(Condition(name=name) for name in "abc"))
    other = StyleFlowModel(official_flow.tiny().float(), conditions, read_flow().reader)
    with pytest.raises(InputError, match="the StyleFlow has 6 and 3"):
        save_styleflow(other, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, m: t.pop("reader.weight"), r"the reader does not fit: reader\.weight is missing"),
        (
            lambda t, m: t.update({"reader.bias": torch.zeros(3)}),
            r"reader\.bias has shape \[3\], expected \[13\]",
        ),
        (lambda t, m: t["reader.mean"].fill_(torch.nan), r"reader\.mean has values that are not finite"),
        (lambda t, m: t["reader.scale"].zero_(), "not above 0"),
        (lambda t, m: m.update(reader_r2="[1, 2]"), "a number for each attribute"),
        (lambda t, m: m.update(reader_r2="[NaN" + ", 1" * 11 + "]"), "a number for each attribute"),
        (lambda t, m: m.update(reader_r2="no"), "a number for each attribute"),
    ],
)
def test_damaged_readers(tmp_path: Path, change: Any, words: str) -> None:
    path = tmp_path / "flow.safetensors"
    save_styleflow(read_flow(), path)
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["attribute_flow"])
    tensors = load_file(path)
    change(tensors, about)
    save_file(tensors, path, metadata={"attribute_flow": json.dumps(about)})
    with pytest.raises(ValueError, match=words):
        load_styleflow(path)
