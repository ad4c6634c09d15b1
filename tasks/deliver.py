"""Handing over: the files of a finished run, from the store to the folder that the user named."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import ValidationError

from portrait_core.errors import MissingChunk
from portrait_core.media import FrameWriter
from portrait_core.pipeline import FrameRange, Job
from portrait_core.pipeline.history import COST, parse_cost
from portrait_core.pipeline.ledger import Ledger
from portrait_core.pipeline.ranges import missing_runs
from portrait_core.pipeline.results import StageRecord, peak_memory_bytes
from portrait_core.report import StageSummary, Summary, curve_picture, package_versions
from portrait_core.runtime.whole_files import write_whole
from portrait_core.store import Output, file_digest
from portrait_core.store.places import redact_place
from tasks.context import device_of
from tasks.pages import alone, finished, page_of
from tasks.stages.edit import REPORT, STRIP
from tasks.stages.encode import CLIP, CUTOUT, SHEET, SIDE_BY_SIDE, SOUND
from tasks.stages.flow import FLOW_FILE, read_curve
from tasks.stages.flow import SHEET as FLOW_SHEET
from tasks.stages.inversion import STEPS
from tasks.stages.layers import PERSON
from tasks.stages.measure import EXPRESSION, MOTION, shown_frames
from tasks.stages.person import PEOPLE
from tasks.stages.portrait import FACE

DELIVERED = {
    "reenactment": ("encode", CLIP),
    "cutout": ("encode", CUTOUT),
    "side_by_side": ("encode", SIDE_BY_SIDE),
    "contact_sheet": ("encode", SHEET),
    "expression": ("measure", EXPRESSION),
}
"""Files of a clip, by what they are: the stage that makes each, and its name."""
FRAMES = "frames"
"""Folder of the clip's frames."""
SUMMARY = "summary"
"""Note of the stage ``encode``: what ``summary.json`` says."""


def deliver(
    job: Job,
    out: Path | None,
    records: Mapping[str, StageRecord],
    seconds: float,
    ledger: Ledger | None = None,
) -> Summary:
    """Copy the clip and the pictures to ``out``, if that is given, and write the summary.

    ``summary.json`` is written there and to the store.

    Args:
        job: a clip's.
        out: folder.
        records: what the stages did in this run.
        seconds: of this run.
        ledger: a look at the store since the stages ended; None looks.

    Raises:
        MissingChunk: something of it is damaged in the store.
    """
    ledger = ledger or Ledger(job)
    for stage in job.stages:
        ledger.done_frames(stage)
    files = {} if out is None else _copied(ledger, out)
    if out is not None and job.settings.output.frames:
        files |= _frames(job, out, anew=any(record.frames_done for record in records.values()))
    summary = summarise(job, ledger, records, files, seconds)
    if out is not None:
        summary.write(out / "summary.json")
    if any(record.frames_done for record in records.values()) or _summary_before(ledger) is None:
        ledger.output("encode").write_note(SUMMARY, summary.model_dump(mode="json"))
    return summary


def _notes(ledger: Ledger) -> frozenset[str]:
    return ledger.contents["encode"].notes


def _copied(ledger: Ledger, out: Path) -> dict[str, str]:
    out.mkdir(parents=True, exist_ok=True)
    files = {}
    for what, (stage, name) in DELIVERED.items():
        digests = ledger.contents[stage].files.get(name)
        if digests is None:
            continue
        if not _is_there(out / name, digests):
            write_whole(out / name, _content(ledger.output(stage), name))
        files[what] = name
    return files | {"summary": "summary.json"}


def _frames(job: Job, out: Path, anew: bool) -> dict[str, str]:
    """Write the clip's frames as PNG files, or with ``output.alpha`` the person's."""
    folder, page = out / FRAMES, page_of(job)
    if anew or not folder.exists():
        cut = job.settings.output.alpha
        with FrameWriter(folder) as writer:
            for _, drawn in shown_frames(job, "cutout" if cut else "frames"):
                writer.write(alone(page, drawn) if cut else finished(job, page, drawn))
    return {"frames": FRAMES}


def _is_there(path: Path, digests: Collection[str]) -> bool:
    """Tell whether a file, and no link to one, holds what the store has under one of these digests."""
    return path.is_file() and not path.is_symlink() and file_digest(path)[:32] in digests


def _content(output: Output, name: str) -> bytes:
    """Read a file of an output.

    Raises:
        MissingChunk: it is not there; its stage will make it again.
    """
    data = output.get_bytes(name)
    if data is None:
        raise MissingChunk(f"{output.path}/{name}", [0])
    return data


def deliver_edit(job: Job, out: Path) -> dict[str, Any]:
    """Write an edited portrait to ``out``, and return the content of ``edit.json``.

    The files are the picture, the strip, the latents and ``edit.json``.
    """
    output = job.output("edit")
    latents = output.read("edited_latents")[0]
    buffer = io.BytesIO()
    np.savez(buffer, before=latents[0], after=latents[1])
    said: dict[str, Any] = {
        "portrait": redact_place(job.portrait),
        "edit": list(job.settings.edit.attributes),
        "strength": job.settings.edit.strength,
        **output.read_fields(REPORT),
        "keys": job.stage_keys,
    }
    files = {
        "edited.png": cv2.imencode(".png", output.read("edited")[0][..., ::-1])[1].tobytes(),
        "strip.png": _content(output, STRIP),
        "latents.npz": buffer.getvalue(),
        "edit.json": (json.dumps(said, indent=2) + "\n").encode(),
    }
    put_files(out, files)
    return said


def deliver_flow(job: Job, out: Path) -> list[Mapping[str, Any]]:
    """Write a trained flow to ``out``, and return the rows of its curve.

    The files are the weights, the sheet of edits, and the curve as a table and a picture.
    """
    output = job.output("flow")
    rows = read_curve(output)
    table = "".join(f"{row['epoch']},{row['loss']:.4f},{row['held_out_log_density']:.4f}\n" for row in rows)
    files = {
        FLOW_FILE: _content(output, FLOW_FILE),
        FLOW_SHEET: _content(output, FLOW_SHEET),
        "curve.csv": f"epoch,loss,held_out_log_density\n{table}".encode(),
        "curve.png": curve_picture(rows),
    }
    put_files(out, files)
    return rows


def deliver_files(job: Job, out: Path) -> None:
    """Write the files that the last stages of a job made to ``out``, as they are."""
    ledger = Ledger(job)
    for stage in job.pipeline.ends:
        output = ledger.output(stage)
        put_files(out, {name: _content(output, name) for name in job.declared(stage).files})


def put_files(out: Path, files: Mapping[str, bytes]) -> None:
    """Write files to a folder by their names, each whole or not at all; equal ones are left alone."""
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        if not _is_there(out / name, [hashlib.sha256(data).hexdigest()[:32]]):
            write_whole(out / name, data)


def summarise(
    job: Job,
    ledger: Ledger,
    records: Mapping[str, StageRecord],
    files: dict[str, str],
    seconds: float,
) -> Summary:
    """Put the summary together from this run's records and what the stages left in the store.

    Where this run had nothing to do, what the last one wrote stands.
    """
    peaks = [result.peak_memory_bytes for record in records.values() for result in record.results]
    before = _summary_before(ledger)
    worked = any(record.frames_done for record in records.values())
    kept = before if not worked else None
    held = kept.held_frames if kept else _held_frames(ledger)
    return Summary(
        portrait=redact_place(job.portrait),
        video=redact_place(job.video),
        store=redact_place(job.store),
        reenactment=job.label,
        profile=job.settings.profile,
        frames=job.frames,
        frame_rate=job.frame_rate,
        has_audio=job.has_audio,
        video_facts={"rate": job.frame_rate, "first_frame": job.first_frame, **job.source},
        sound=ledger.output("encode").read_note(SOUND) or "",
        files=files,
        stages=_stages(job, ledger, records, kept),
        seconds=round(seconds, 2),
        peak_memory_bytes=max([peak_memory_bytes(), *peaks]),
        stored_bytes=sum(contents.bytes for contents in ledger.contents.values()),
        losses=kept.losses if kept else _losses(job, ledger, before),
        person_found=ledger.output("layers").read_fields(PERSON).get("found"),
        people=kept.people if kept else _people(ledger),
        motion=kept.motion if kept else ledger.output("measure").read_fields(MOTION),
        held_frames=held,
        failures=kept.failures if kept else _failures(job),
        versions=package_versions(),
        device=kept.device if kept else _device(job, before),
        keys=job.stage_keys,
        settings=job.settings.model_dump(mode="json", exclude={"runner": {"storage_options"}}),
    )


def _summary_before(ledger: Ledger) -> Summary | None:
    """Read the summary of the last run; None where there is none, or it is not one as it is written."""
    note = ledger.output("encode").read_note(SUMMARY) if SUMMARY in _notes(ledger) else None
    try:
        return Summary.model_validate(note)
    except ValidationError:
        return None


def _stages(
    job: Job, ledger: Ledger, records: Mapping[str, StageRecord], kept: Summary | None
) -> list[StageSummary]:
    spent = {row.stage: row.seconds_all_runs for row in kept.stages} if kept else {}
    rows = []
    for stage in job.stages:
        record = records.get(stage) or StageRecord(stage)
        seconds = spent.get(stage)
        if seconds is None:
            note = ledger.output(stage).read_note(COST) if COST in ledger.contents[stage].notes else None
            seconds = parse_cost(note).seconds
        rows.append(
            StageSummary(
                stage=stage,
                seconds=round(record.seconds, 2),
                seconds_all_runs=round(seconds, 2),
                cpu_seconds=round(record.cpu_seconds, 2),
                frames_done=record.frames_done,
                frames_total=job.total(stage),
            )
        )
    return rows


def _losses(job: Job, ledger: Ledger, before: Summary | None) -> dict[str, Any]:
    """Return losses of the inversion per frame, and per step those of the first frame and the tuning."""
    if ledger.dropped_names("inversion"):
        return before.losses if before else {}
    output, inverted = ledger.output("inversion"), ledger.done_frames("inversion")
    rows: list[float | None] = [None] * job.frames
    for run in missing_runs(~inverted, FrameRange(0, job.frames)):
        values = output.read("inversion_loss", *run)[:, 0]
        rows[run.start : run.stop] = [round(float(value), 5) for value in values]
    return {
        "inversion_frames": rows,
        "inversion_first_frame_steps": output.read_fields(STEPS).get("first_frame", []),
        "tuning_steps": ledger.output("tuning").read_fields(STEPS).get("loss", []),
    }


def _device(job: Job, before: Summary | None) -> str:
    """Return the device of the networks; a run that had nothing to do does not load PyTorch to find out."""
    return device_of(job) if before is None or "torch" in sys.modules else before.device


def _people(ledger: Ledger) -> dict[str, Any]:
    """Return who is in the driving video and in the portrait."""
    driver = ledger.output("person").read_fields(PEOPLE)
    about = {"driver": {name: value for name, value in driver.items() if name != "held"}}
    return about | {"portrait": ledger.output("portrait").read_fields(FACE)}


def _held_frames(ledger: Ledger) -> dict[str, list[int]]:
    held = ledger.output("person").read_fields(PEOPLE).get("held", {})
    return {"no_face": [], **held, "not_rendered": _indices(~ledger.done_frames("render"))}


def _indices(mask: Any) -> list[int]:
    return [int(i) for i in np.flatnonzero(mask)]


def _failures(job: Job) -> list[dict[str, Any]]:
    store = job.open_store()
    rows: list[dict[str, Any]] = []
    for kind, name in sorted({job.unit_of(stage) for stage in job.stages}):
        unit = store.unit(kind, name)
        if not unit.failure_tables():
            continue
        found = unit.failures()
        found = found[found["key"] == found["stage"].map(job.stage_keys)]  # others share the unit
        for row in found.to_dict(orient="records"):
            rows.append({"unit": kind, **{name: _plain(value) for name, value in row.items()}})
    return rows


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | None) else str(value)
