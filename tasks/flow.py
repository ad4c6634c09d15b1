"""Stages ``sample`` and ``flow``: pictures of a generator with their attributes, and the flow they teach."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import InputError
from tasks.context import FrameArrays, done, todo, unit_of, use_threads
from tasks.frames import Save, each
from tasks.job import CURVE, FLOW, FLOW_SHEET, Job
from tasks.policy import StageResult, Stopwatch, stage_task
from tasks.ranges import FrameRange

if TYPE_CHECKING:
    from torch import Tensor

    from portrait_core.attributes.conditions import Conditions
    from portrait_core.attributes.editing import AttributeFlow
    from portrait_core.attributes.training import FlowSamples, FlowTrainer
    from portrait_core.generators import TriPlaneGenerator

_SHEET_TILE = 128


@stage_task("sample", precision="job")
def sample(job: Job, start: int, stop: int) -> StageResult:
    """Draw samples ``[start, stop)`` of the generator, render each frontally, and label it."""
    watch = Stopwatch("sample", start, stop)
    runs = todo(job, "sample", start, stop)
    if not runs:
        return watch.result(0)
    from tasks.attributes import drawn, frontal_pictures, labelled
    from tasks.fitting import generator

    use_threads(job, alone=False)
    model, arrays = generator(job), FrameArrays(job, "sample")

    def work(batch: FrameRange) -> Save:
        z, ws = drawn(job, model, batch)
        pictures = frontal_pictures(job, model, ws)
        rows = {
            "latents": ws[:, :1].cpu().numpy(),
            "pictures": pictures,
            "labels": labelled(job, z, pictures),
        }
        return arrays.later(batch.start, rows)

    return watch.result(each(job, "sample", runs, work, job.settings.sample.batch))


@stage_task("flow", precision="fp32")
def train_flow(job: Job) -> StageResult:
    """Train the flow on all samples. Keeps checkpoints; resumes from them."""
    watch = Stopwatch("flow", 0, 1)
    if done(job, "flow").all():
        return watch.result(0)
    from portrait_core.attributes.editing import AttributeFlow
    from portrait_core.attributes.reading import LatentReader
    from tasks.fitting import StoredCheckpoint, step_reporter

    use_threads(job, alone=True)
    unit, key, settings = unit_of(job, "flow"), job.stage_keys["flow"], job.settings
    samples, schema = _samples(job)
    learnt, held_out = samples.split(settings.flow.held_out, settings.seed)
    conditions = schema.standardised(learnt.labels)
    trainer = _trainer(job, conditions, learnt, held_out)
    checkpoint = StoredCheckpoint(unit, "flow", key)
    curve = _Curve(job)
    trainer.run(checkpoint, step_reporter(unit, "flow", key, trainer.steps), curve.add)
    reader = LatentReader.fit(learnt, held_out)
    model = AttributeFlow(trainer.flow, conditions, reader)
    packed, sheet = _packed(model, job, curve.rows), _sheet(job, model, held_out)
    unit.uncommit("flow", [0])
    unit.put_bytes(FLOW, packed)
    unit.put_bytes(FLOW_SHEET, sheet)
    unit.commit("flow", [0], key)
    checkpoint.clear()
    return watch.result(1)


def _samples(job: Job) -> tuple[FlowSamples, Conditions]:
    """The samples that have labels (a picture without a face has none), and what those mean.

    Raises:
        InputError: if too few have, or the user's table of labels cannot be used.
    """
    import torch

    from portrait_core.attributes.training import FlowSamples
    from tasks.attributes import completed_labels

    unit = unit_of(job, "sample")
    made = np.flatnonzero(done(job, "sample"))
    rows = unit.read_together(("latents", "labels"), 0, job.frames)
    made = made[np.isfinite(rows["labels"][made]).any(1)]
    if len(made) < job.settings.flow.held_out + job.settings.flow.batch:
        raise InputError(
            f"only {len(made)} of {job.frames} samples show a face: too few to hold out "
            f"{job.settings.flow.held_out} and learn from the rest; draw more, or look at `pictures` in the "
            "store"
        )
    labels, conditions = completed_labels(job, rows["labels"][made], made)
    return FlowSamples(torch.from_numpy(rows["latents"][made]), torch.from_numpy(labels)), conditions


def _trainer(job: Job, conditions: Conditions, learnt: FlowSamples, held_out: FlowSamples) -> FlowTrainer:
    import torch

    from portrait_core.attributes.flow import ConditionalFlow
    from portrait_core.attributes.settings import FlowSettings, FlowTrainingSettings, SolverSettings
    from portrait_core.attributes.training import FlowTrainer
    from tasks.context import device_of

    chosen = job.settings.flow
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.settings.seed)
        flow = ConditionalFlow(
            FlowSettings(width=learnt.w.shape[-1], hidden=chosen.hidden, context=len(conditions))
        )
    training = FlowTrainingSettings(
        epochs=chosen.epochs,
        batch=chosen.batch,
        learning_rate=chosen.learning_rate,
        decay_fraction=chosen.decay_fraction,
        jitter=chosen.jitter,
        seed=job.settings.seed,
        checkpoint_s=job.settings.runner.checkpoint_s,
        solver=SolverSettings(method=chosen.solver, steps=chosen.solver_steps),
    )
    return FlowTrainer(flow.to(device_of(job)), conditions, learnt, training, held_out)


class _Curve:
    """Loss and held-out density by pass, kept in the store as they come."""

    def __init__(self, job: Job) -> None:
        self._unit, self._key = unit_of(job, "flow"), job.stage_keys["flow"]
        said = self._unit.read_meta(CURVE) or {}
        self.rows: list[Mapping[str, float | None]] = said["rows"] if said.get("key") == self._key else []

    def add(self, epoch: int, loss: float, density: float | None) -> None:
        """A pass is over. One that is done again after a kill takes its row's place."""
        known = [row for row in self.rows if (row["epoch"] or 0) < epoch]
        self.rows = [*known, {"epoch": epoch, "loss": loss, "held_out_log_density": density}]
        self._unit.write_meta(CURVE, {"key": self._key, "rows": self.rows})


def _packed(model: AttributeFlow, job: Job, curve: object) -> bytes:
    """The flow as the content of a file, with what it was made of."""
    import json

    from portrait_core.attributes.files import save_flow

    about = {
        "generator_sha256": job.weights["generator"],
        "samples": str(job.frames),
        "truncation": f"{job.settings.sample.truncation:g}",
        "labels": job.settings.sample.labels,
        "curve": json.dumps(curve, sort_keys=True),
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / FLOW
        save_flow(model, path, about)
        return path.read_bytes()


def _sheet(job: Job, model: AttributeFlow, held_out: FlowSamples) -> bytes:
    """Held-out samples with each attribute at its least, as it is, and at its greatest."""
    from portrait_core.report import contact_sheet
    from tasks.attributes import frontal_pictures, png
    from tasks.fitting import generator

    drawing, count = generator(job), job.settings.flow.sheet
    rows: dict[str, list[NDArray[np.uint8]]] = {}
    for name in model.conditions.editable:
        attribute = model.conditions.attributes[model.conditions.index(name)]
        shown = [
            frontal_pictures(job, drawing, _moved(model, held_out, count, name, value, drawing))
            for value in (attribute.low, None, attribute.high)
        ]
        rows[name] = [pictures[i] for i in range(count) for pictures in shown]
    titles = [title for _ in range(count) for title in ("least", "own", "greatest")]
    return png(contact_sheet(rows, titles, _SHEET_TILE))


def _moved(
    model: AttributeFlow,
    samples: FlowSamples,
    count: int,
    name: str,
    value: float | None,
    drawing: TriPlaneGenerator,
) -> Tensor:
    """Latents of samples with one attribute moved, a row for every row that the generator takes, on the
    flow's device."""
    from portrait_core.attributes.editing import AttributeEdit, edit_latent

    w, labels = samples.w[:count].to(next(model.flow.parameters())), samples.labels[:count]
    if value is not None:
        w = edit_latent(model, w, labels, [AttributeEdit({name: value})])
    return w.expand(-1, drawing.settings.num_ws, -1)
