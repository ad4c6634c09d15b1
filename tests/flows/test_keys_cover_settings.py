"""A stage's key names every setting, and every stage, that the stage reads: else changing one would leave old
work in place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import flows.engine.runners
from flows.cli.main import app
from flows.reenact import run_stages
from portrait_core.baselines.pirenderer import PIRenderer
from portrait_core.pipeline import Job, Pipeline, all_pipelines, find_pipeline
from portrait_core.pipeline.job import make_recipes
from portrait_core.pipeline.ledger import Ledger
from portrait_core.runtime.model_cache import forget_models
from portrait_core.settings import HOW, Section, Settings, load_settings
from tasks.ingest_subjects import ingest_subjects
from tasks.running import Call, functions_of, run_call
from tests import official_files
from tests.flows.conftest import Arguments, JobMaker2d
from tests.pipeline.test_keys import WEIGHTS

SECTIONS = {type(getattr(Settings(), name)): name for name in Settings.model_fields}
NOT_IN_KEYS = {"device"}
"""Results are equal on one type of device."""
CHOOSE_WEIGHTS = {
    "generator.weights",
    "inversion.phi",
    "tuning.perceptual",
    "tracking.models",
    "tracking.head",
    "tracking.tracker",
    "edit.attributes",
    "edit.flow",
    "baseline.method",
    "baseline.eyes",
    "evaluation.identity",
    "evaluation.features",
    "evaluation.estimators",
    "evaluation.lpips",
    "flow.labels",
}
"""Looked at to find files of weights and of labels, whose digests are in the keys of stages that use them."""
CHOOSE_INPUTS = {"tracking.driver_face", "tracking.portrait_face"}
"""Choices of persons, whose digests are among a job's inputs."""
Place = tuple[str, str]
"""Pipeline and stage."""
KINDS = ("3d", "2d", "animator", "template")
READ = ("read_deep3d", "read_deca")
MAYBE = {
    # where the tracker finds a face in the result: an untrained generator makes none
    ("clip", "measure"): {("clip", "pose")},
    # where DECA's portrait takes the driver's eyes
    ("clip", "retarget"): {("clip", "person")},
    ("evaluate_3d", "retarget"): {("evaluate_3d", "person")},
    ("evaluate_2d", "retarget"): {("evaluate_2d", "person")},
    ("evaluate_template", "retarget"): {("evaluate_template", "person")},
    # where the tracker finds a face in the result
    ("evaluate_3d", "pose"): {("evaluate_3d", "person")},
    # where the driver's coefficients are asked for
    **{(f"evaluate_{kind}", "assess"): {(f"evaluate_{kind}", name) for name in READ} for kind in KINDS},
    **{(f"evaluate_{kind}", name): {(f"evaluate_{kind}", "person")} for kind in KINDS for name in READ},
    # by methods that are driven by pictures
    ("evaluate_animator", "animate"): {("evaluate_animator", "person")},
    # where views are asked for
    ("evaluate_animator", "assess"): {
        ("evaluate_animator", name) for name in ("read_deep3d", "read_deca", "animate_views")
    },
    ("evaluate_animator", "animate_views"): {("evaluate_animator", name) for name in ("portrait", "person")},
    ("evaluate_template", "animate"): {("evaluate_template", "person")},
    **{
        ("evaluate_pirenderer", stage): {("evaluate_pirenderer", "person")}
        for stage in ("animate", "animate_views", "read_deca")
    },
    ("evaluate_pirenderer", "assess"): {("evaluate_pirenderer", "read_deca")},
    ("clip_2d", "retarget"): {("clip_2d", "person")},
}
"""What is opened under some circumstances only."""


@dataclass
class Recorded:
    """What the functions of stages read in a run of every pipeline."""

    settings: dict[Place, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Settings that they read."""
    outputs: dict[Place, set[Place]] = field(default_factory=lambda: defaultdict(set))
    """Stages whose output they opened, with the pipeline of the job that was asked."""
    begun: set[Place] = field(default_factory=set)
    """Stages that ran."""


_at_work: ContextVar[Place | None] = ContextVar("at_work", default=None)


@contextmanager
def _recording(patch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    """Note what is read while a stage's function is at work, by the threads that it starts too."""
    found = Recorded()
    plain, submit = Section.__getattribute__, ThreadPoolExecutor.submit
    job_output, ledger_output = Job.output, Ledger.output

    def read_setting(self: Section, name: str) -> Any:
        kind, place = object.__getattribute__(self, "__class__"), _at_work.get()
        known = kind.model_fields.get(name)
        if place is not None and known is not None and known.json_schema_extra != HOW:
            if kind in SECTIONS:
                found.settings[place].add(f"{SECTIONS[kind]}.{name}")
            elif name not in SECTIONS.values():
                found.settings[place].add(name)
        return plain(self, name)

    def opened(job: Job, stage: str) -> None:
        if (place := _at_work.get()) is not None:
            found.outputs[place].add((job.goal, stage))

    def open_of_job(self: Job, stage: str) -> Any:
        opened(self, stage)
        return job_output(self, stage)

    def open_of_ledger(self: Ledger, stage: str) -> Any:
        opened(self._job, stage)
        return ledger_output(self, stage)

    def recorded_call(call: Call) -> Any:
        place = call.parameters["job"].goal, STAGE_OF[call.name]
        if place not in found.begun:
            found.begun.add(place)
            forget_models()  # what is loaded already was read for another stage
        token = _at_work.set(place)
        try:
            return run_call(call)
        finally:
            _at_work.reset(token)

    def submit_in_context(self: ThreadPoolExecutor, function: Any, /, *rest: Any, **named: Any) -> Any:
        return submit(self, copy_context().run, function, *rest, **named)

    patch.setattr(Section, "__getattribute__", read_setting)
    patch.setattr(Job, "output", open_of_job)
    patch.setattr(Ledger, "output", open_of_ledger)
    patch.setattr(flows.engine.runners, "run_call", recorded_call)
    patch.setattr(ThreadPoolExecutor, "submit", submit_in_context)
    yield found


def _stage_of() -> dict[str, str]:
    stages = [stage for pipeline in all_pipelines() for stage in pipeline.stages]
    return {function.name: stage.name for stage in stages for function in functions_of(stage.done_by)}


STAGE_OF = _stage_of()


def _sets(*changes: str) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def _places(folder: Path, name: str) -> list[str]:
    return ["--store", str(folder / f"{name}-store"), "--out", str(folder / name)]


def _recorded(lines: Sequence[tuple[list[str], int]]) -> Recorded:
    """Give commands, with the exit codes that are due."""
    with pytest.MonkeyPatch.context() as patch, _recording(patch) as found:
        for line, code in lines:
            ended = CliRunner().invoke(app, line)
            assert ended.exit_code == code, ended.output
    forget_models()
    return found


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, arguments: Arguments) -> Recorded:
    """A clip one of whose frames shows no face, with settings that have much read."""
    folder = tmp_path_factory.mktemp("clip")
    changes = ("inversion.steps=1", "tuning.locality=0.1")
    return _recorded([(arguments(folder / "store", folder / "out", *changes), 1)])


@pytest.fixture(scope="module")
def attributes(tmp_path_factory: pytest.TempPathFactory, portrait: Path, small: list[str]) -> Recorded:
    """A flow, and an edit by it."""
    folder = tmp_path_factory.mktemp("attributes")
    drawing = ["flow.held_out=4", "flow.batch=4", "flow.epochs=1", "flow.hidden=[8]", "flow.sheet=1"]
    training = ["train-styleflow", "--samples", "10", *_places(folder, "flow")]
    editing = ["edit", "--portrait", str(portrait), *_places(folder, "edit")]
    few = ["edit.first_steps=2", "edit.tuning_steps=1", "edit.strip=2", "tuning.locality_patch=8"]
    flow = f"edit.flow={folder / 'flow' / 'attribute_flow.safetensors'}"
    return _recorded(
        [
            ([*training, *_sets(*small, *drawing, "sample.neural_resolution=16")], 0),
            ([*editing, *_sets("age=+20", flow, *small, *few)], 0),
        ]
    )


@pytest.fixture(scope="module")
def evaluated(
    tmp_path_factory: pytest.TempPathFactory, portrait: Path, driver: Path, small: list[str], tiny_2d: Path
) -> Recorded:
    """An evaluation of the methods whose weights ship, on one pair and on its true frames."""
    folder = tmp_path_factory.mktemp("evaluated")
    videos = ["--videos", str(driver)]
    methods = ["--method", "references", "--method", "3D GAN", "--method", "2D GAN (w/o pose)"]
    rest = [*methods, *_sets(*small, f"consistency.generator_2d={tiny_2d}")]
    pairs = ["evaluate", "--portraits", str(portrait), *videos, *_places(folder, "pairs"), *rest]
    true = ["evaluate", "--protocol", "self", *videos, *_places(folder, "self"), *rest]
    return _recorded([(pairs, 0), (true, 0)])


@pytest.fixture(scope="module")
def pirenderer(
    tmp_path_factory: pytest.TempPathFactory, portrait: Path, driver: Path, small: list[str]
) -> Recorded:
    """An evaluation of PIRenderer with random weights."""
    folder = tmp_path_factory.mktemp("pirenderer")
    models = folder / "models"
    models.mkdir()
    torch.manual_seed(0)
    torch.save({"net_G_ema": PIRenderer().state_dict()}, models / "pirenderer.pt")
    official_files.write_deep3d(models / "epoch_20.pth")
    official_files.write_similarity_landmarks(models / "similarity_Lm3D_all.mat")
    inputs = ["--portraits", str(portrait), "--videos", str(driver), "--method", "PIRenderer"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PORTRAIT_MODELS", str(models))
        return _recorded([(["evaluate", *inputs, *_places(folder, "all"), *_sets(*small)], 0)])


@pytest.fixture(scope="module")
def clip_2d(tmp_path_factory: pytest.TempPathFactory, job_2d: JobMaker2d) -> Recorded:
    """A clip by a 2D generator, with settings that have much read."""
    job = job_2d(tmp_path_factory.mktemp("clip_2d"), "inversion.steps=1", "tuning.locality=0.1")
    with pytest.MonkeyPatch.context() as patch, _recording(patch) as found:
        run_stages(job)
    forget_models()
    return found


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory, small: list[str]) -> Recorded:
    """People of both generators, the 2D one's edited."""
    store = str(tmp_path_factory.mktemp("people") / "store")
    few = [*small, "consistency.subjects=1"]
    with pytest.MonkeyPatch.context() as patch, _recording(patch) as found:
        for changes in (few, [*few, "consistency.gan=2d", "consistency.edit=age"]):
            run_stages(ingest_subjects(store, load_settings("embedded", changes)))
    forget_models()
    return found


EVALUATIONS = (
    "track_portrait",
    "evaluate_3d",
    "evaluate_2d",
    "evaluate_animator",
    "evaluate_template",
    "evaluation",
)
RUNS = {"clip": "clip", "edit": "attributes", "flow": "attributes"}
RUNS |= {"clip_2d": "clip_2d", "subjects": "people"}
RUNS |= dict.fromkeys(EVALUATIONS, "evaluated")
RUNS["evaluate_pirenderer"] = "pirenderer"
"""The fixture that runs every pipeline."""


@pytest.fixture
def recorded(request: pytest.FixtureRequest, name: str) -> Recorded:
    """What a run of the pipeline ``name`` read."""
    found: Recorded = request.getfixturevalue(RUNS[name])
    return found


every_pipeline = pytest.mark.parametrize(
    "name", ["clip", *(pytest.param(name, marks=pytest.mark.slow) for name in RUNS if name != "clip")]
)


def test_every_pipeline_is_run() -> None:
    assert {pipeline.name for pipeline in all_pipelines()} == set(RUNS)


def _settings_in_keys(pipeline: Pipeline) -> dict[str, set[str]]:
    """Every setting that a stage's key depends on, through the stages before it too."""
    inputs = dict.fromkeys(("portrait", "video", "labels", "plan"), "0" * 64)
    recipes = make_recipes(pipeline, inputs, 9, Settings(), WEIGHTS | {"flow": "1" * 64})
    known: dict[str, set[str]] = {}
    for stage in pipeline.names:
        own: set[str] = set()
        for section, values in recipes[stage]["settings"].items():
            own |= {f"{section}.{name}" for name in values} if isinstance(values, dict) else {section}
        known[stage] = own.union(*(known[before] for before in pipeline.reads(stage)))
    return known


@pytest.mark.timeout(600)
@every_pipeline
def test_stages_read_no_setting_that_their_key_leaves_out(recorded: Recorded, name: str) -> None:
    pipeline = find_pipeline(name)
    known = _settings_in_keys(pipeline)
    sections = {"runner": type(Settings().runner), "limits": type(Settings().limits)}
    operators = {f"{name}.{one}" for name, section in sections.items() for one in section.model_fields}
    allowed = NOT_IN_KEYS | CHOOSE_WEIGHTS | CHOOSE_INPUTS | operators
    left_out = {stage: recorded.settings[name, stage] - known[stage] - allowed for stage in pipeline.names}
    assert {stage: names for stage, names in left_out.items() if names} == {}


@pytest.mark.timeout(600)
@every_pipeline
def test_stages_open_no_output_but_their_own_and_of_those_they_say_they_read(
    recorded: Recorded, name: str
) -> None:
    pipeline = find_pipeline(name)
    for stage in pipeline.names:
        opened = recorded.outputs[name, stage]
        allowed = {(name, one) for one in (stage, *pipeline.reads(stage))}
        assert opened <= allowed, f"{stage} opens {sorted(opened - allowed)}, which its reads leave out"
        if (name, stage) not in recorded.begun:
            continue  # another pipeline had made it
        idle = allowed - opened - MAYBE.get((name, stage), set())
        assert not idle, f"{stage} does not open {sorted(idle)}, which its reads name"


@pytest.mark.timeout(600)
@every_pipeline
def test_what_was_recorded_is_what_stages_are_known_to_read(recorded: Recorded, name: str) -> None:
    for place, setting in {
        ("clip", "tuning"): "tuning.steps",
        ("clip", "encode"): "output.crf",
        ("clip_2d", "render"): "composite.feather_px",
        ("flow", "sample"): "sample.truncation",
        ("flow", "flow"): "flow.epochs",
        ("edit", "edit"): "edit.strip",
        ("subjects", "subjects"): "consistency.amount",
    }.items():
        assert place[0] != name or setting in recorded.settings[place]
    last = find_pipeline(name).stages[-1]
    assert {(name, stage) for stage in last.reads or (last.name,)} & recorded.outputs[name, last.name]
