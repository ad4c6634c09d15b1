"""A run's tables and pictures."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from portrait_core.report.pictures import side_by_side
from tests.benchmarks.inversion import COLUMNS, Sums, cells
from tests.benchmarks.portraits import poses
from tests.benchmarks.portraits.scoring import Score, Sheet
from tests.benchmarks.tables import Grid

Numbers = NDArray[np.float64]

GOAL_DEG = 2.0
_NONE = "-"


def _mean(values: Numbers | Sequence[float]) -> float:
    """Mean of what is there; NaN of nothing."""
    known = np.asarray(values)[np.isfinite(values)]
    return float(known.mean()) if known.size else np.nan


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else _NONE


def _angles(errors: Numbers) -> str:
    """Mean absolute yaw, pitch and roll of ``[n,3]``."""
    return " ".join(_number(_mean(np.abs(errors[:, k])), 1) for k in range(3))


def _within(errors: Numbers) -> str:
    """Views read within the goal on every axis."""
    return f"{int((np.abs(errors) <= GOAL_DEG).all(-1).sum())}/{errors[..., 0].size}"


READINGS = ("generator", "aimed", "mesh", "generator - mesh")
"""Whose pose is read: see :class:`Score`; the last is the generator's error without the tracker's own."""


def _errors(score: Score, reading: str) -> Numbers:
    if reading == "generator - mesh":
        return score.generator - score.mesh
    return np.asarray(getattr(score, reading))


def _pose_row(name: str, reading: str, scores: Sequence[Score]) -> list[str]:
    errors = np.stack([_errors(score, reading) for score in scores])
    found = f"{int(np.isfinite(errors[..., 0]).sum())}/{errors[..., 0].size}"
    sides = [_angles(errors[:, chosen].reshape(-1, 3)) for chosen in poses.SIDES.values()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no face in any view
        worst = _number(float(np.nanmax(np.abs(errors))), 1)
    return [name, reading, found, _within(errors), *sides, worst]


def pose_grid(scores: Sequence[Score]) -> Grid:
    """Absolute pose errors of one variant by side, a portrait after the other and all together."""
    blocks = [(score.portrait, [score]) for score in scores]
    blocks += [("mean", list(scores))] if len(scores) > 1 else []
    rows = [_pose_row(name, reading, group) for name, group in blocks for reading in READINGS]
    headings = ["portrait", "read off", "faces", f"<= {GOAL_DEG:g}", *poses.SIDES, "worst"]
    title = f"{scores[0].variant}: pose error in degrees, mean |yaw| |pitch| |roll| of each side"
    ends = frozenset(range(len(READINGS) - 1, len(rows), len(READINGS)))
    return Grid(title, headings, rows, n_text=2, section_ends=ends)


def signed_grid(scores: Sequence[Score]) -> Grid:
    """Signed errors at every view, averaged over portraits."""
    rows = []
    for axis, name in enumerate(("yaw", "pitch", "roll")):
        for reading in READINGS[:3]:
            errors = np.stack([_errors(score, reading)[:, axis] for score in scores])
            rows.append([name, reading, *(_signed(_mean(column)) for column in errors.T)])
    title = f"{scores[0].variant}: what is read minus what was asked, degrees, mean over portraits"
    return Grid(title, ["axis", "read off", *(t.replace(" ", "\n") for t in poses.titles())], rows, n_text=2)


def _signed(value: float) -> str:
    return f"{value:+.1f}" if np.isfinite(value) else _NONE


def _score_cells(scores: Sequence[Score]) -> list[str]:
    depth, identity = (np.stack([getattr(s, name) for s in scores]) for name in ("depth", "identity"))
    upper = np.triu_indices(len(poses.VIEWS), 1)
    apart = np.stack([s.apart[upper] for s in scores])
    found = [
        *(_number(_mean([getattr(s, name) for s in scores]), 3) for name in ("feature", "l1", "source_depth"))
    ]
    found += [_number(_mean(depth[:, chosen]), 3) for chosen in poses.SIDES.values()]
    found += [_number(_mean(identity[:, chosen]), 2) for chosen in poses.SIDES.values()]
    worst = _number(float(np.nanmax(apart)), 2) if np.isfinite(apart).any() else _NONE
    return [*found, _number(_mean(apart), 2), worst, _number(_mean([s.seconds for s in scores]), 0)]


def score_grid(scores: Sequence[Score]) -> Grid:
    """Picture, depth and identity of one variant."""
    rows = [[score.portrait, _taken(score), *_score_cells([score])] for score in scores]
    rows += [["mean", "", *_score_cells(scores)]] if len(scores) > 1 else []
    sides = [side.replace("pitch", "p").replace("yaw", "y") for side in poses.SIDES]
    headings = [
        "portrait",
        "taken at",
        "feature",
        "L1",
        "depth\nsource",
        *(f"depth\n{side}" for side in sides),
    ]
    headings += [*(f"ident\n{side}" for side in sides), "views\napart", "at\nmost", "s"]
    title = f"{scores[0].variant}: source view, depth (box units), identity"
    return Grid(title, headings, rows, n_text=2)


def _taken(score: Score) -> str:
    """Yaw, pitch and roll of the photograph: a view from the other side is nobody's guess."""
    return " ".join(f"{angle:+.0f}" for angle in score.taken_deg)


def people_grid(rows: dict[str, Sums]) -> Grid:
    """Synthetic people by degrees from the front."""
    return Grid(
        "synthetic people tuned on their front view: columns are degrees away",
        ["variant", *COLUMNS],
        [[name, *cells(sums)] for name, sums in rows.items()],
    )


def strip(sheet: Sheet, tile: int = 256) -> NDArray[np.uint8]:
    """Three rows of labelled pictures: photograph, source view and yaws; template and the other views."""
    names = poses.titles()
    first = {"photograph": sheet.photograph, "source view": sheet.source}
    split = poses.N_YAWS
    first |= dict(zip(names[:split], sheet.views[:split], strict=True))
    second = {"template": sheet.template} | dict(zip(names[split:], sheet.views[split:], strict=True))
    rows = [side_by_side(row, tile) for row in (first, second)]
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def grids(scores: Sequence[Score]) -> list[Grid]:
    """All tables of one variant."""
    return [pose_grid(scores), signed_grid(scores), score_grid(scores)]
