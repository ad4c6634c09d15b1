"""Stage ``flow``: the flow between latents and attributes, learnt from samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.pipeline import File, Job, Note, Stage
from portrait_core.pipeline.ledger import done_frames
from portrait_core.pipeline.results import StageResult, Stopwatch
from tasks.context import device_of, use_threads
from tasks.running import does

if TYPE_CHECKING:
    from torch import Tensor

    from portrait_core.attribute_editing.conditions import Conditions
    from portrait_core.attribute_editing.latent_edits import StyleFlowModel
    from portrait_core.attribute_editing.styleflow_training import LabelledLatents
    from portrait_core.store import Output

FLOW_FILE, SHEET = "attribute_flow.safetensors", "contact_sheet.png"
"""Files of the trained flow, and of its edits of some samples."""
CURVE = "flow_curve"
"""Note of the loss and the held-out density by pass."""

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
    if done_frames(job, "flow").all():
        return watch.result(0)
    from portrait_core.attribute_editing.latent_edits import StyleFlowModel
    from portrait_core.attribute_editing.latent_reader import LatentReader
    from portrait_core.attribute_editing.styleflow_files import styleflow_bytes
    from portrait_core.attribute_editing.trainer_from_settings import make_trainer
    from tasks.fitting import StoredCheckpoint, step_reporter

    use_threads(job, alone=True)
    output, settings = job.output("flow"), job.settings
    samples, schema = _samples(job)
    learnt, held_out = samples.split(settings.flow.held_out, settings.seed)
    conditions = schema.standardised(learnt.labels)
    trainer = make_trainer(settings, conditions, learnt, held_out, device_of(job))
    checkpoint = StoredCheckpoint(output)
    curve = _Curve(output)
    trainer.run(checkpoint, step_reporter(output, trainer.steps), curve.add)
    model = StyleFlowModel(trainer.flow, conditions, LatentReader.fit(learnt, held_out))
    sheet = _sheet(job, model, held_out)
    output.put_bytes(FLOW_FILE, styleflow_bytes(model, _about(job, curve.rows)))
    output.put_bytes(SHEET, sheet)
    output.write_note(CURVE, {"rows": curve.rows})
    output.commit()
    checkpoint.clear()
    return watch.result(1)


def _samples(job: Job) -> tuple[LabelledLatents, Conditions]:
    """Read the samples that have labels, and what those mean.

    Raises:
        InputError: if too few have, or the user's table of labels cannot be used.
    """
    from portrait_core.attribute_editing.training_samples import training_samples

    made, settings = np.flatnonzero(done_frames(job, "sample")), job.settings
    rows = job.output("sample").read_together(("latents", "labels"))
    scene = settings.sample.labels == "scene"
    return training_samples(rows["latents"], rows["labels"], made, scene, settings.flow)


def read_curve(output: Output) -> list[Mapping[str, Any]]:
    """Read the rows of a training's curve; those that no training writes are left out."""
    rows = output.read_fields(CURVE).get("rows")
    return [row for row in (rows if isinstance(rows, list) else ()) if _is_row(row)]


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict):
        return False
    epoch, loss, density = (row.get(name) for name in ("epoch", "loss", "held_out_log_density"))
    return type(epoch) is int and isinstance(loss, float) and isinstance(density, float | None)


class _Curve:
    """Loss and held-out density by pass, kept in the store as they come."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.rows = read_curve(output)

    def add(self, epoch: int, loss: float, density: float | None) -> None:
        """Record the end of a pass. One that is done again after a kill takes its row's place."""
        known = [row for row in self.rows if (row["epoch"] or 0) < epoch]
        self.rows = [*known, {"epoch": epoch, "loss": loss, "held_out_log_density": density}]
        self._output.write_note(CURVE, {"rows": self.rows})


def _about(job: Job, curve: object) -> dict[str, str]:
    """Describe the data and settings that a flow was made of."""
    return {
        "generator_sha256": job.weights["generator"],
        "samples": str(job.frames),
        "truncation": f"{job.settings.sample.truncation:g}",
        "labels": job.settings.sample.labels,
        "curve": json.dumps(curve, sort_keys=True),
    }


def _sheet(job: Job, model: StyleFlowModel, held_out: LabelledLatents) -> bytes:
    """Draw edits of held-out samples."""
    from portrait_core.generators.prepared import volume_of
    from portrait_core.report import png_bytes
    from portrait_core.report.edits import flow_sheet
    from tasks.attributes import frontal
    from tasks.fitting import generator

    drawing = volume_of(generator(job))

    def draw(w: Tensor) -> NDArray[np.uint8]:
        return frontal(job, drawing, w.expand(-1, drawing.settings.num_ws, -1))

    return png_bytes(flow_sheet(model, held_out, job.settings.flow.sheet, draw))
