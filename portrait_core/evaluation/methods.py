"""The methods that evaluations compare: ours, its ablations and the baselines, as changes of settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from portrait_core.settings import Settings

Goal = Literal["evaluate_3d", "evaluate_2d", "evaluate_animator", "evaluate_pirenderer", "evaluate_template"]
"""Name of the pipeline that makes and assesses a method's clips (:mod:`tasks.pipelines`)."""


@dataclass(frozen=True)
class Method:
    """A row of a table."""

    name: str
    """Name in tables, as the paper prints it."""
    goal: Goal
    """Pipeline of its clips."""
    changes: tuple[str, ...] = ()
    """Changes of settings, as ``section.field=value``."""
    turns: bool = True
    """True if it can show the head from a sampled pose, so that it has the paper's ID."""
    files: tuple[str, ...] = ()
    """Names of the models, brought by the user, that it needs beside the profile's."""
    own: bool = False
    """True for a method that the user described."""


_STILL_POSE = "render.pose_transfer=none"
_PIRENDERER = ("pirenderer", "deep3d", "deep3d_landmarks")


def _pirenderer(name: str, *changes: str, turns: bool = True, files: Sequence[str] = ()) -> Method:
    changes = ("baseline.method=pirenderer", *changes)
    return Method(name, "evaluate_pirenderer", changes, turns, (*_PIRENDERER, *files))


OURS = Method("3D GAN", "evaluate_3d")
"""The method of the profile itself."""
PAPER_METHODS = (
    _pirenderer(
        "PIRenderer (w/o eyes, w/o pose)", "baseline.eyes=first", _STILL_POSE, turns=False, files=("bfm",)
    ),
    _pirenderer("PIRenderer (w/o pose)", _STILL_POSE, turns=False),
    _pirenderer("PIRenderer (w/o eyes)", "baseline.eyes=first", files=("bfm",)),
    _pirenderer("PIRenderer"),
    Method("2D GAN (w/o pose)", "evaluate_2d", turns=False),
    Method("3D GAN (w/o pose)", "evaluate_3d", (_STILL_POSE,), turns=False),
    OURS,
)
"""Rows of the paper's tables 1 and 2, in their order."""
FACE_VID2VID = Method(
    "Face-vid2vid", "evaluate_animator", ("baseline.method=facevid2vid",), files=("facevid2vid",)
)
"""The method of the supplement's figure S3."""
REFERENCES = (
    Method("pasted template", "evaluate_template", ("baseline.method=template",), turns=False),
    Method("still photograph", "evaluate_animator", ("baseline.method=still",), turns=False),
)
"""Methods that cost nothing: every other one should be better than these."""
_OWN_PICTURES = ("render.detail=off", "render.motion=camera", "output.frame=crop", "output.alpha=false")
ABLATIONS = (
    Method("3D GAN (w/o pose)", "evaluate_3d", (_STILL_POSE,), turns=False),
    Method("w/o compositing", "evaluate_3d", ("composite.mode=whole",)),
    Method("w/o tuning", "evaluate_3d", ("tuning.steps=0",)),
    Method("w/o mouth freezing", "evaluate_3d", ("inversion.mouth=template",)),
    Method("mouth of the inversion", "evaluate_3d", ("inversion.mouth=render",)),
    Method("driven eyes", "evaluate_3d", ("template.eyes=driven",)),
    Method("eyes of the portrait", "evaluate_3d", ("template.eyes=paper",)),
    Method("w/o detail transfer", "evaluate_3d", _OWN_PICTURES),
    Method("camera motion", "evaluate_3d", ("render.motion=camera",)),
    Method("W", "evaluate_3d", ("inversion.space=w",)),
    Method("W+", "evaluate_3d", ("inversion.space=w+",)),
)
"""Changes of one part of the method. Those that a profile has already are left out of its table."""

GROUPS: Mapping[str, tuple[Method, ...]] = {
    "paper": PAPER_METHODS,
    "facevid2vid": (FACE_VID2VID,),
    "references": REFERENCES,
    "ablations": ABLATIONS,
    "all": (*PAPER_METHODS, FACE_VID2VID, *REFERENCES, *ABLATIONS),
}
"""Methods by the name of their group."""


def choose_methods(names: Iterable[str]) -> list[Method]:
    """Return the methods of groups and of single names, each once, in the order of the names.

    ``NAME: section.field=value ...`` is our method with changes of one's own.

    Raises:
        ValueError: there is no group and no method of a name.
    """
    chosen: dict[str, Method] = {}
    known = {method.name: method for method in GROUPS["all"]}
    for name in names:
        own, colon, changes = name.partition(":")
        if colon and changes.strip():
            found: Sequence[Method] = [_own_method(own.strip(), changes, known)]
        elif name in GROUPS:
            found = GROUPS[name]
        elif name in known:
            found = [known[name]]
        else:
            raise ValueError(
                f"there is no method {name!r}; groups are {', '.join(GROUPS)}, methods {', '.join(known)}; "
                "or give 'NAME: section.field=value ...' for our method with changes of your own"
            )
        chosen |= {method.name: method for method in found if method.name not in chosen}
    return list(chosen.values())


def _own_method(name: str, changes: str, known: Mapping[str, Method]) -> Method:
    if not re.fullmatch(r"[\w .,+()-]+", name) or name in known or name in GROUPS:
        raise ValueError(
            f"{name!r} cannot name a method of your own: give letters, digits, blanks and .,+()-, and no "
            "name of a method or a group that there is"
        )
    return Method(name, "evaluate_3d", tuple(changes.split()), own=True)


def is_ablation(method: Method) -> bool:
    """Tell whether a method is ours with one part changed."""
    return method in ABLATIONS


def changes_nothing(ours: Settings, changed: Settings) -> bool:
    """Tell whether an ablation's settings are the profile's own."""
    return ours == changed
