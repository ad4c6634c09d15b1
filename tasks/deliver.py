"""Handing over: the files of a finished run, from the store to the folder that the user named."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from portrait_core.report import StageSummary, Summary, curve_picture, package_versions
from portrait_core.store import Store
from tasks.context import device_of, done, unit_of
from tasks.history import cost, note_stored
from tasks.job import CURVE, EDIT_REPORT, FLOW, FLOW_SHEET, STRIP, Job, Stage
from tasks.policy import StageResult, peak_memory_bytes
from tasks.retention import dropped

DELIVERED = {
    "reenactment": "reenactment.mp4",
    "side_by_side": "side_by_side.mp4",
    "contact_sheet": "contact_sheet.png",
}
"""What is in the store under these names, and the files' names."""


@dataclass
class StageRecord:
    """What one stage did in this run."""

    stage: Stage
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    frames_done: int = 0
    results: list[StageResult] = field(default_factory=list)


def deliver(job: Job, out: Path | None, records: Mapping[Stage, StageRecord], seconds: float) -> Summary:
    """Copy the clip and the pictures to ``out``, if that is given, and write ``summary.json`` there and to
    the store."""
    files = {} if out is None else _copied(job, out)
    summary = summarise(job, records, files, seconds)
    if out is not None:
        summary.write(out / "summary.json")
    unit_of(job, "encode").write_meta("summary", summary.model_dump(mode="json"))
    return summary


def _copied(job: Job, out: Path) -> dict[str, str]:
    out.mkdir(parents=True, exist_ok=True)
    files = {}
    for what, name in DELIVERED.items():
        data = unit_of(job, "encode").get_bytes(name)
        if data is not None:
            _put_file(out / name, data)
            files[what] = name
    return files | {"summary": "summary.json"}


def deliver_edit(job: Job, out: Path) -> dict[str, Any]:
    """Write an edited portrait to ``out``: the picture, the strip, the latents, and ``edit.json``, which is
    returned."""
    unit = unit_of(job, "edit")
    latents = unit.read("edited_latents", 0, 1)[0]
    packed = io.BytesIO()
    np.savez(packed, before=latents[0], after=latents[1])
    said: dict[str, Any] = {
        "portrait": job.portrait_path,
        "edit": list(job.settings.edit.attributes),
        "strength": job.settings.edit.strength,
        **(unit.read_meta(EDIT_REPORT) or {}),
        "keys": job.stage_keys,
    }
    files = {
        "edited.png": cv2.imencode(".png", unit.read("edited", 0, 1)[0][..., ::-1])[1].tobytes(),
        "strip.png": unit.get_bytes(STRIP) or b"",
        "latents.npz": packed.getvalue(),
        "edit.json": (json.dumps(said, indent=2) + "\n").encode(),
    }
    _put_files(out, files)
    note_stored(job)
    return said


def deliver_flow(job: Job, out: Path) -> list[dict[str, Any]]:
    """Write a trained flow to ``out``: the weights, the sheet of edits, the curve as a table and a picture;
    the curve's rows are returned."""
    unit = unit_of(job, "flow")
    rows: list[dict[str, Any]] = (unit.read_meta(CURVE) or {}).get("rows", [])
    table = "".join(f"{row['epoch']},{row['loss']:.4f},{row['held_out_log_density']:.4f}\n" for row in rows)
    files = {
        FLOW: unit.get_bytes(FLOW) or b"",
        FLOW_SHEET: unit.get_bytes(FLOW_SHEET) or b"",
        "curve.csv": f"epoch,loss,held_out_log_density\n{table}".encode(),
        "curve.png": curve_picture(rows),
    }
    _put_files(out, files)
    note_stored(job)
    return rows


def _put_files(out: Path, files: Mapping[str, bytes]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        _put_file(out / name, data)


def _put_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; an equal one is left alone."""
    if path.is_file() and hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(data).digest():
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)


def summarise(
    job: Job, records: Mapping[Stage, StageRecord], files: dict[str, str], seconds: float
) -> Summary:
    """Put the summary together from this run's records and what the stages left in the store."""
    unit = unit_of(job, "encode")
    peaks = [result.peak_memory_bytes for record in records.values() for result in record.results]
    return Summary(
        portrait=job.portrait_path,
        video=job.video_path,
        store=job.store,
        reenactment=job.reenactment_unit,
        profile=job.settings.profile,
        frames=job.frames,
        frame_rate=job.frame_rate,
        has_audio=job.has_audio,
        files=files,
        stages=_stages(job, records),
        seconds=round(seconds, 2),
        peak_memory_bytes=max([peak_memory_bytes(), *peaks]),
        stored_bytes=note_stored(job),
        losses=_losses(job),
        motion=unit.read_meta("motion") or {},
        held_frames={"no_face": _no_face(job), "not_rendered": _indices(~done(job, "render"))},
        failures=_failures(job),
        versions=package_versions(),
        device=_device(job),
        keys=job.stage_keys,
        settings=job.settings.model_dump(mode="json"),
    )


def _stages(job: Job, records: Mapping[Stage, StageRecord]) -> list[StageSummary]:
    rows = []
    for stage in job.stages:
        record = records.get(stage) or StageRecord(stage)
        rows.append(
            StageSummary(
                stage=stage,
                seconds=round(record.seconds, 2),
                seconds_all_runs=round(cost(job, stage).seconds, 2),
                cpu_seconds=round(record.cpu_seconds, 2),
                frames_done=record.frames_done,
                frames_total=job.total(stage),
            )
        )
    return rows


def _losses(job: Job) -> dict[str, Any]:
    """Per-frame losses of the inversion; step by step, those of the first frame and of the tuning."""
    unit = unit_of(job, "inversion")
    if dropped(job, "inversion"):
        return dict((unit.read_meta("summary") or {}).get("losses", {}))
    inverted = done(job, "inversion")
    per_frame = [
        round(float(unit.read("inversion_loss", i, i + 1)[0, 0]), 5) if inverted[i] else None
        for i in range(job.frames)
    ]
    return {
        "inversion_frames": per_frame,
        "inversion_first_frame_steps": (unit.read_meta("inversion_steps") or {}).get("first_frame", []),
        "tuning_steps": (unit.read_meta("tuning_steps") or {}).get("loss", []),
    }


def _device(job: Job) -> str:
    """Where the networks ran; a run that had nothing to do does not load PyTorch to find out."""
    before = unit_of(job, "encode").read_meta("summary")
    return device_of(job) if before is None or "torch" in sys.modules else str(before["device"])


def _no_face(job: Job) -> list[int]:
    return _indices(~unit_of(job, "fit").read("ok", 0, job.frames).astype(bool))


def _indices(mask: Any) -> list[int]:
    return [int(i) for i in np.flatnonzero(mask)]


def _failures(job: Job) -> list[dict[str, Any]]:
    store = Store(job.store)
    rows: list[dict[str, Any]] = []
    for kind, name in sorted({job.unit_of(stage) for stage in job.stages}):
        table = store.unit(kind, name).failures()
        for row in table.to_dict(orient="records"):
            rows.append({"unit": kind, **{name: _plain(value) for name, value in row.items()}})
    return rows


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) else str(value)
