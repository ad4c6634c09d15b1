"""The program's pipelines: what is made, and by which stages. A new stage is one file and one line here."""

from __future__ import annotations

from portrait_core.pipeline import Pipeline, register
from tasks.stages.edit import EDIT
from tasks.stages.encode import ENCODE
from tasks.stages.fit import FIT
from tasks.stages.flow import FLOW
from tasks.stages.inversion import INVERSION
from tasks.stages.landmarks import LANDMARKS
from tasks.stages.layers import LAYERS
from tasks.stages.measure import MEASURE
from tasks.stages.portrait import PORTRAIT
from tasks.stages.pose import POSE
from tasks.stages.render import RENDER
from tasks.stages.retarget import RETARGET
from tasks.stages.sample import SAMPLE
from tasks.stages.subjects import SUBJECTS
from tasks.stages.template import TEMPLATE
from tasks.stages.tuning import TUNING

CLIP_STAGES = (
    PORTRAIT,
    LAYERS,
    LANDMARKS,
    FIT,
    RETARGET,
    TEMPLATE,
    INVERSION,
    TUNING,
    POSE,
    RENDER,
    ENCODE,
    MEASURE,
)
"""Stages of a reenacted clip (paper section 3)."""

CLIP = register(Pipeline("clip", "reenactment", CLIP_STAGES, ends=("encode", "measure")))
"""A portrait and a driving video."""

# An edit inverts the photograph itself and tunes the generator on it: a clip of one frame without a template.
# What edits of one portrait share lies in a unit of its own.
EDIT_STAGES = (PORTRAIT, LAYERS, INVERSION.in_unit("inverted"), TUNING.in_unit("inverted"), EDIT)
"""Stages of an edited portrait (paper section 3.4)."""

EDITED = register(Pipeline("edit", "edited portrait", EDIT_STAGES, ends=("edit",)))
"""A portrait with other attributes."""

FLOW_PIPELINE = register(Pipeline("flow", "flow", (SAMPLE, FLOW), ends=("flow",)))
"""The flow that edits attributes; the frames of its job are its samples."""

SUBJECTS_PIPELINE = register(Pipeline("subjects", "evaluation", (SUBJECTS,), ends=("subjects",)))
"""A cell of the paper's table 3; the frames of its job are people."""
