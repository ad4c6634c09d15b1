"""The program's pipelines: what is made, and by which stages. A new stage is one file and one line here."""

from __future__ import annotations

from dataclasses import replace

from portrait_core.pipeline import Pipeline, register
from tasks.stages.animate import ANIMATE, ANIMATE_BY_COEFFICIENTS, ANIMATE_VIEWS, VIEWS_BY_COEFFICIENTS
from tasks.stages.assess import ASSESS
from tasks.stages.coefficients import READ_DECA, READ_DEEP3D
from tasks.stages.edit import EDIT
from tasks.stages.encode import ENCODE
from tasks.stages.fit import FIT
from tasks.stages.flow import FLOW
from tasks.stages.inversion import INVERSION
from tasks.stages.landmarks import LANDMARKS
from tasks.stages.layers import LAYERS
from tasks.stages.measure import MEASURE
from tasks.stages.person import PERSON
from tasks.stages.portrait import PORTRAIT
from tasks.stages.pose import POSE
from tasks.stages.render import RENDER
from tasks.stages.render_2d import RENDER_2D
from tasks.stages.retarget import RETARGET
from tasks.stages.sample import SAMPLE
from tasks.stages.subjects import SUBJECTS
from tasks.stages.table import TABLE
from tasks.stages.template import TEMPLATE
from tasks.stages.tuning import TUNING
from tasks.stages.views import VIEWS

CLIP_STAGES = (
    PORTRAIT,
    LAYERS,
    LANDMARKS,
    PERSON,
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

CLIP_2D_STAGES = (PORTRAIT, LANDMARKS, PERSON, FIT, RETARGET, TEMPLATE, INVERSION, TUNING, RENDER_2D)
"""Stages of a clip by a 2D generator (paper section 4.1): the expressions alone, in the generator's crop."""

CLIP_2D = register(Pipeline("clip_2d", "2D reenactment", CLIP_2D_STAGES, ends=("render",)))
"""A portrait and a driving video, for the comparison with a GAN without a volume."""

# Evaluations (paper section 4): the same stages make our clips; what is compared is assessed by one stage.
ASSESS_ANIMATED = replace(ASSESS, shows_gaps_of="animate")
READ = (READ_DEEP3D, READ_DECA)
DRIVER_STAGES = (PORTRAIT, LANDMARKS, PERSON, FIT, *READ)

EVALUATE_3D = register(
    Pipeline(
        "evaluate_3d",
        "assessed clip",
        (*CLIP_STAGES[:5], *READ, *CLIP_STAGES[5:11], VIEWS, ASSESS),
        ends=("assess",),
    )
)
"""A clip of ours, assessed."""
EVALUATE_2D = register(
    Pipeline(
        "evaluate_2d",
        "assessed clip",
        (*CLIP_2D_STAGES[:4], *READ, *CLIP_2D_STAGES[4:], ASSESS),
        ends=("assess",),
    )
)
"""A clip by a 2D generator, assessed."""
EVALUATE_ANIMATOR = register(
    Pipeline(
        "evaluate_animator",
        "assessed clip",
        (*DRIVER_STAGES, ANIMATE, ANIMATE_VIEWS, ASSESS_ANIMATED),
        ends=("assess",),
    )
)
"""A clip of a method without optimisation, assessed."""
EVALUATE_PIRENDERER = register(
    Pipeline(
        "evaluate_pirenderer",
        "assessed clip",
        (*DRIVER_STAGES, ANIMATE_BY_COEFFICIENTS, VIEWS_BY_COEFFICIENTS, ASSESS_ANIMATED),
        ends=("assess",),
    )
)
"""A clip of PIRenderer, assessed."""
EVALUATE_TEMPLATE = register(
    Pipeline(
        "evaluate_template",
        "assessed clip",
        (*DRIVER_STAGES, RETARGET, TEMPLATE, ANIMATE, ASSESS_ANIMATED),
        ends=("assess",),
    )
)
"""The pasted expression template, assessed."""
TRACK_PORTRAIT = register(Pipeline("track_portrait", "tracked portrait", (PORTRAIT,), ends=("portrait",)))
"""A portrait, whose pose other clips are seen from."""
EVALUATION = register(Pipeline("evaluation", "tables", (TABLE,), ends=("table",)))
"""The tables of assessed clips."""
SUBJECTS_PIPELINE = register(Pipeline("subjects", "evaluation", (SUBJECTS,), ends=("subjects",)))
"""A cell of the paper's table 3; the frames of its job are people."""
