"""Stage ``flow``: the flow between latents and attributes, learnt from samples."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import InputError
from portrait_core.pipeline import File, Job, Note, Stage
from portrait_core.pipeline.ledger import done
from portrait_core.pipeline.results import StageResult, Stopwatch
from tasks.context import use_threads
from tasks.running import does

if TYPE_CHECKING:
    from torch import Tensor

    from portrait_core.attributes.conditions import Conditions
    from portrait_core.attributes.editing import AttributeFlow
    from portrait_core.attributes.training import FlowSamples, FlowTrainer
    from portrait_core.generators import TriPlaneGenerator

FLOW_FILE, SHEET = "attribute_flow.safetensors", "contact_sheet.png"
"""Files of the trained flow, and of its edits of some samples."""
CURVE = "flow_curve"
"""Note of the loss and the held-out density by pass."""
_SHEET_TILE = 128

FLOW = Stage(
    name="flow",
    title="train flow",
    version=3,
    unit="flow",
    reads=("sample",),
    inputs=("labels",),
    settings=("flow", "seed"),
    writes=(File(FLOW_FILE), File(SHEET), Note(CURVE)),
    counts_frames=True,
    steps=lambda settings, samples: settings.flow.steps(samples),
)


@does(FLOW, precision="fp32")
def train_flow(job: Job) -> StageResult:
    """Train the flow on all samples. Keeps checkpoints; resumes from them."""
    watch = Stopwatch("flow", 0, 1)
    if done(job, "flow").all():
        return watch.result(0)
    from portrait_core.attributes.editing import AttributeFlow
    from portrait_core.attributes.reading import LatentReader
    from tasks.fitting import StoredCheckpoint, step_reporter

    use_threads(job, alone=True)
    output, settings = job.output("flow"), job.settings
    samples, schema = _samples(job)
    learnt, held_out = samples.split(settings.flow.held_out, settings.seed)
    conditions = schema.standardised(learnt.labels)
    trainer = _trainer(job, conditions, learnt, held_out)
    checkpoint = StoredCheckpoint(output)
    curve = _Curve(job)
    trainer.run(checkpoint, step_reporter(output, trainer.steps), curve.add)
    reader = LatentReader.fit(learnt, held_out)
    model = AttributeFlow(trainer.flow, conditions, reader)
    packed, sheet = _packed(model, job, curve.rows), _sheet(job, model, held_out)
    output.put_bytes(FLOW_FILE, packed)
    output.put_bytes(SHEET, sheet)
    output.write_note(CURVE, {"rows": curve.rows})
    output.commit()
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

    made = np.flatnonzero(done(job, "sample"))
    rows = job.output("sample").read_together(("latents", "labels"))
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
        self._output = job.output("flow")
        said = self._output.read_note(CURVE) or {}
        self.rows: list[Mapping[str, float | None]] = said.get("rows", [])

    def add(self, epoch: int, loss: float, density: float | None) -> None:
        """A pass is over. One that is done again after a kill takes its row's place."""
        known = [row for row in self.rows if (row["epoch"] or 0) < epoch]
        self.rows = [*known, {"epoch": epoch, "loss": loss, "held_out_log_density": density}]
        self._output.write_note(CURVE, {"rows": self.rows})


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
        path = Path(folder) / FLOW_FILE
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
