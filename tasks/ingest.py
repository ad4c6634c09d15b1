"""Looking at what the user gave: is it a picture and a video, and what job they make."""

from __future__ import annotations

import hashlib
from fractions import Fraction as FrameRate
from functools import lru_cache
from os.path import lexists
from pathlib import Path
from typing import TYPE_CHECKING, Any

from portrait_core.errors import InputError, RoleError
from portrait_core.inputs.copies import local_copy
from portrait_core.inputs.known import InputFacts, Kind, gather_facts, local_digest
from portrait_core.inputs.spelling import written_with_slashes
from portrait_core.media.kinds import kind_at
from portrait_core.media.pictures import FileSequence, find_pictures
from portrait_core.media.rates import clip_range
from portrait_core.model_files.needs import (
    weight_file,
    weight_files,
)
from portrait_core.pipeline import Job, find_pipeline
from portrait_core.pipeline.job import file_name, make_stage_keys, stem
from portrait_core.runtime.package_files import data_file
from portrait_core.settings import Settings
from portrait_core.store import Store, record_name
from portrait_core.store.places import local_path
from portrait_core.text.file_names import is_utf8
from portrait_core.weights.readers.safetensors_files import open_safetensors
from portrait_core.weights.registry import MODELS
from portrait_core.weights.sidecars import parsed_object

if TYPE_CHECKING:
    from portrait_core.attribute_editing.conditions import Conditions
    from portrait_core.attribute_editing.edit_requests import EditRequest

LABEL_SOURCES = ("latent", "photograph")
"""Values of ``edit.labels`` that are no file's name."""
SMALLEST_SIDE = 64
"""A portrait or a video with a shorter side has no face that could be tracked."""
MOST_2D = 512
"""Largest side of the grid that a 2D generator's patches are counted in."""


def ingest(portrait: str, video: str, store: str, settings: Settings, label: str = "") -> Job:
    """Check both inputs, take their digests and make the pair's job.

    Nothing is written: :func:`keep_facts` keeps what was found out.

    Args:
        portrait: path or URL.
        video: path or URL.
        store: path or URL.
        settings: of the run.
        label: what people call the pair; the files' names by default.

    Raises:
        InputError: when the portrait is no picture, the video no video of two frames or more, or the edit
            cannot be asked of the flow.
        ValueError: when weights that the settings ask for are missing or do not go with the settings.
    """
    edited = ingest_edit(portrait, store, settings) if settings.edit.attributes else None
    return _pair("clip", (portrait, video), store, settings, label, edited)


def ingest_2d(portrait: str, video: str, store: str, settings: Settings, label: str = "") -> Job:
    """Make the job that animates a portrait with a 2D generator (paper section 4.1): its expressions alone.

    Arguments and errors are those of :func:`ingest`; ``generator.weights`` names a 2D generator, and there
    are no edits.
    """
    if settings.edit.attributes:
        raise InputError("the 2D baseline animates the portrait as it is; leave edit.attributes empty")
    return _pair("clip_2d", (portrait, video), store, settings, label)


def _pair(
    goal: str, places: tuple[str, str], store: str, settings: Settings, label: str, edited: Job | None = None
) -> Job:
    """Make the job of a pipeline that takes a portrait and a driving video."""
    portrait, video = places
    source = edited.stage_keys["edit"] if edited else _portrait(portrait, store, settings)
    info, files = _video(video, store, settings), _files(video)
    rate = str(FrameRate(settings.media.rate)) if files else info.frame_rate
    first, frames = _range(info, FrameRate(rate), settings)
    inputs = {"portrait": source, "video": info.sha256, "driver_face": _face_input(settings, "driver_face")}
    inputs["portrait_face"] = _face_input(settings, "portrait_face")
    if first:
        inputs["first_frame"] = str(first)
    if files:
        inputs["rate"] = rate
    weights = _weights(settings, flat=goal == "clip_2d")
    if goal == "clip_2d":
        settings = _for_2d(settings)
    name = edited.label if edited else stem(portrait)
    return Job(
        goal=goal,
        store=_place(store),
        label=label or f"{name}--{stem(str(files.files[0].parent)) if files else stem(video)}",
        portrait=_place(portrait),
        video=_place(video),
        frames=frames,
        frame_rate=rate,
        has_audio=info.has_audio,
        source=_source(info, files),
        edited=edited,
        inputs=inputs,
        stage_keys=make_stage_keys(find_pipeline(goal), inputs, frames, settings, weights),
        weights=weights,
        settings=settings,
    )


def _files(video: str) -> FileSequence | None:
    """Return the files of a driving video that is a folder or a pattern of pictures."""
    path = local_path(video)
    pictures = find_pictures(path) if path is not None else None
    return pictures if isinstance(pictures, FileSequence) else None


def _source(info: InputFacts, files: FileSequence | None) -> dict[str, Any]:
    """Return what people are told of the driving video."""
    about = {name: getattr(info, name) for name in ("is_vfr", "repeated", "dropped", "rotation_deg")}
    return about | (
        {"files": len(files.files), "missing": files.missing, "left_out": files.left_out} if files else {}
    )


def _range(info: InputFacts, rate: FrameRate, settings: Settings) -> tuple[int, int]:
    """Return the first frame of the driving video that is used, and the number of frames.

    Raises:
        InputError: fewer than two frames are left.
    """
    media, count = settings.media, info.frame_count
    first, frames = clip_range(media.begin, media.end, None, rate, count)
    if frames < 2:
        whole = f"{count} frames, {float(count / rate):.2f} s at {float(rate):.5g} frames per second"
        raise InputError(
            f"from {media.begin} to {media.end or 'the end'} there are fewer than two frames in {info.url} "
            f"({whole}); give other values of --from and --to (media.begin, media.end)"
        )
    return first, min(frames, media.max_frames or frames)


def ingest_edit(portrait: str, store: str, settings: Settings) -> Job:
    """Make the job that edits a portrait as ``settings.edit`` says.

    It inverts the photograph, tunes on it, and edits.

    Raises:
        InputError: when the portrait is no picture, or the edit cannot be asked of the flow.
        ValueError: when weights that the settings ask for are missing or do not go with the settings.
    """
    digest = _portrait(portrait, store, settings)
    edit = settings.edit
    settings = _for_photograph(settings)
    requests = _asked_of_flow(settings)
    weights = _weights(settings, labelled=edit.labels != "latent")
    inputs = {"portrait": digest, "labels": _row_digest(edit.labels, portrait)}
    inputs["portrait_face"] = _face_input(settings, "portrait_face")
    words = "_".join(request.slug for request in requests).replace(".", "_")  # no suffix of a file's name
    return Job(
        goal="edit",
        store=_place(store),
        label=f"{stem(portrait)}_{words}",
        portrait=_place(portrait),
        frames=1,
        inputs=inputs,
        stage_keys=make_stage_keys(find_pipeline("edit"), inputs, 1, settings, weights),
        weights=weights,
        settings=settings,
    )


def _for_photograph(settings: Settings) -> Settings:
    """Return the settings with which an edit's portrait is inverted.

    They are those of Pivotal Tuning of the photograph (paper section 3.4). The whole crop counts, so that the
    latent knows the hair that an edit shall change, and the mouth is the photograph's.
    """
    edit = settings.edit
    whole = {"first_steps": edit.first_steps, "outside_weight": 1.0, "patch_share": 1.0, "mouth": "template"}
    tuned = {"steps": edit.tuning_steps, "locality": edit.locality, "outside_weight": 1.0}
    return settings.model_copy(
        update={
            "inversion": settings.inversion.model_copy(update=whole),
            "tuning": settings.tuning.model_copy(update=tuned),
        }
    )


def _for_2d(settings: Settings) -> Settings:
    """Return the settings with which a 2D generator is fitted.

    Its pictures are synthesised whole, so that whole ones are compared. Terms of depth and coverage, which do
    not apply, are left out.
    """
    about = said_of_generator(weight_file(settings, "generator"))
    side = min(MOST_2D, max(map(int, parsed_object(about["settings"])["channels"])))
    tuned = {"depth_anchor": 0.0, "novel_view": 0.0, "background": 0.0, "patch": side, "locality_patch": side}
    return settings.model_copy(
        update={
            "generator": settings.generator.model_copy(update={"neural_resolution": side}),
            "inversion": settings.inversion.model_copy(update={"patch_share": 1.0}),
            "tuning": settings.tuning.model_copy(update=tuned),
        }
    )


def _row_digest(labels: str, portrait: str) -> str:
    """Return the digest of a portrait's row in the user's table of labels.

    It covers the table and the name by which it calls the portrait, and is empty where there is no table.
    """
    if labels in LABEL_SOURCES:
        return ""
    table = local_digest(local_copy(labels, limit="table_bytes"))
    return hashlib.sha256(f"{table}\n{file_name(portrait)}".encode()).hexdigest()


def ingest_flow(store: str, samples: int, settings: Settings) -> Job:
    """Return the job that draws and labels ``samples`` of the settings' generator and trains a flow on them.

    Raises:
        InputError: if no sample is left to learn from.
        ValueError: when weights that the settings ask for are missing or do not go with the settings.
    """
    if samples < settings.flow.held_out + settings.flow.batch:
        raise InputError(
            f"{samples} samples leave nothing to learn from: {settings.flow.held_out} are held out and a "
            f"step takes {settings.flow.batch}; give more, or set flow.held_out and flow.batch lower"
        )
    weights = _weights(settings, labelled=settings.sample.labels != "scene")
    if settings.sample.labels == "scene" and not _is_scene(weight_file(settings, "generator")):
        raise ValueError(
            "this generator's z does not hold what its pictures show, so there are no exact labels; set "
            "sample.labels=photograph for a local model's, and flow.labels=FILE.csv for your own"
        )
    table = (
        ""
        if settings.flow.labels is None
        else local_digest(local_copy(settings.flow.labels, limit="table_bytes"))
    )
    inputs = {"labels": table}
    return Job(
        goal="flow",
        store=_place(store),
        label=f"flow-{samples}",
        frames=samples,
        inputs=inputs,
        stage_keys=make_stage_keys(find_pipeline("flow"), inputs, samples, settings, weights),
        weights=weights,
        settings=settings,
    )


def ingest_portrait(portrait: str, store: str, settings: Settings) -> Job:
    """Check a portrait and make the job that tracks it.

    Raises:
        InputError: the portrait is no picture, or too small.
        ValueError: weights are missing or do not go with the settings.
    """
    inputs = {
        "portrait": _portrait(portrait, store, settings),
        "portrait_face": _face_input(settings, "portrait_face"),
    }
    weights = _weights(settings)
    return Job(
        goal="track_portrait",
        store=_place(store),
        label=stem(portrait),
        portrait=_place(portrait),
        frames=1,
        inputs=inputs,
        stage_keys=make_stage_keys(find_pipeline("track_portrait"), inputs, 1, settings, weights),
        weights=weights,
        settings=settings,
    )


def _face_input(settings: Settings, name: str) -> str:
    """Return the digest of the choice of a person: that of a picture to compare with, or of the number.

    It is empty for ``largest``, which asks for nobody.
    """
    choice: str = getattr(settings.tracking, name)
    place = choice.partition(":")[2]
    if place:
        return local_digest(local_copy(place, limit_bytes=settings.runner.input_cache_bytes))
    return "" if choice == "largest" else hashlib.sha256(f"person {choice}".encode()).hexdigest()


def _place(place: str) -> str:
    return str(local_path(place) or place)


def _portrait(portrait: str, store: str, settings: Settings) -> str:
    """Look at a portrait, and return its digest."""
    found = _facts(portrait, "image", store, settings)
    if min(found.height, found.width) < SMALLEST_SIDE:
        raise RoleError(
            "portrait",
            f"{found.url} is {found.width}x{found.height} pixels; give one of at least "
            f"{SMALLEST_SIDE} pixels on its shorter side, better 512 and more",
        )
    return found.sha256


def _video(video: str, store: str, settings: Settings) -> InputFacts:
    """Look at a driving video."""
    found = _facts(video, "video", store, settings)
    if found.frame_count < 2:
        kind = kind_at(local_copy(video, limit_bytes=settings.runner.input_cache_bytes))
        what = f" (it is {kind})" if kind.family == "picture" else ""
        raise RoleError(
            "video",
            f"the driving video {found.url} has one frame{what}: there is no motion to take over. Give a "
            "clip of two frames or more; its expressions and head pose drive the portrait",
        )
    if min(found.width, found.height) < SMALLEST_SIDE:
        raise RoleError(
            "video",
            f"the driving video {found.url} is {found.width}x{found.height} pixels, too small to find a face "
            f"in; give one of at least {SMALLEST_SIDE} pixels on its shorter side",
        )
    return found


_new_facts: dict[tuple[str, str], InputFacts] = {}
"""Facts about inputs that are not kept yet, by store and record."""


def _facts(place: str, kind: Kind, store: str, settings: Settings) -> InputFacts:
    """Return the facts about an input: from the store where that still holds, else by reading all of it."""
    role = "portrait" if kind == "image" else "video"
    if not is_utf8(place):
        named = place.encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise RoleError(role, f"{named} has a name that is not UTF-8, which no record can hold; rename it")
    opened, record = Store(_place(store), settings.runner.storage_options), _record(place, kind)
    known = opened.read_record("inputs", record)
    try:
        found = gather_facts(_place(place), kind, known, settings.runner.input_cache_bytes)
    except InputError as error:
        note = written_with_slashes(place) if local_path(place) and not lexists(_place(place)) else ""
        raise RoleError(role, f"{error}{note}") from error
    if found.as_dict() != known:
        _new_facts[opened.url, record] = found
    return found


def _record(place: str, kind: Kind) -> str:
    return record_name(f"{kind} {_place(place)}")


def keep_facts(job: Job) -> None:
    """Keep in the store what was found out of a job's inputs: another run need not read them again."""
    kinds: tuple[tuple[str, Kind], ...] = ((job.portrait, "image"), (job.video, "video"))
    for place, kind in kinds:
        found = _new_facts.pop((job.store, _record(place, kind)), None) if place else None
        if found is not None:
            job.open_store().write_record("inputs", _record(place, kind), found.as_dict())


def _weights(settings: Settings, labelled: bool = False, flat: bool = False) -> dict[str, str]:
    """Return the digests of all weights, once the generator is known to go with the settings.

    With ``labelled``, that of the local model of attributes is among them; ``flat`` asks for a 2D generator.
    """
    files = weight_files(settings)
    if labelled:
        files["age_gender"] = data_file(settings.tracking.models) / MODELS["age_gender"].file
    _check_generator(files["generator"], settings, flat)
    return {name: local_digest(path) for name, path in files.items()}


def _asked_of_flow(settings: Settings) -> tuple[EditRequest, ...]:
    """Return the edits that the settings ask for, checked against what the flow knows."""
    from portrait_core.attribute_editing.edit_requests import check_requests, parse_requests

    requests = parse_requests(settings.edit.attributes)
    if settings.edit.flow is None:
        raise ValueError(
            f"the profile {settings.profile} names no flow for edits; train one for its generator with "
            "`portrait train-styleflow`, and set edit.flow=FILE"
        )
    check_requests(requests, _conditions(weight_file(settings, "flow")))
    return requests


@lru_cache(maxsize=4)
def _conditions(flow: Path) -> Conditions:
    from portrait_core.attribute_editing.styleflow_files import load_styleflow

    return load_styleflow(flow).conditions


def _is_scene(generator: Path) -> bool:
    """Tell whether the generator's z holds a scene's parameters."""
    about = said_of_generator(generator)
    if about.get("kind", "triplane") == "stylegan2":
        from portrait_core.generators.scene_latents_2d import LAYOUT_2D

        return parsed_object(about.get("latent_layout", "{}")) == LAYOUT_2D
    own = parsed_object(about.get("settings", "{}"))
    return bool(own.get("mapping_kind", "stylegan") == "scene")


def said_of_generator(path: Path) -> dict[str, Any]:
    """Return what a generator's file says of itself, without its weights.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        with open_safetensors(path, "np") as file:
            about = dict(file.metadata() or {})
        return parsed_object(about["generator"]) if "generator" in about else about
    except (ValueError, OSError) as error:
        raise ValueError(
            f"cannot read the generator {path}: {error}. Network files (.pkl) are converted once by "
            "`portrait models import FILE`"
        ) from error


def _check_generator(path: Path, settings: Settings, flat: bool) -> None:
    """Look at what the generator's file says of itself, before any work.

    A tri-plane generator is looked at without loading PyTorch.
    """
    about = said_of_generator(path)
    is_flat = about.get("kind", "triplane") != "triplane"
    if is_flat and not flat:
        raise ValueError(f"{path} holds a 2D generator; reenactment needs a tri-plane generator (EG3D)")
    if flat and not is_flat:
        raise ValueError(
            f"{path} holds a tri-plane generator; the 2D baseline needs a 2D generator: set "
            "generator.weights=models/embedded_2d.safetensors, or generator.weights=stylegan2"
        )
    size = about.get("image_resolution", settings.template.size)
    if size != settings.template.size and not flat:
        raise ValueError(
            f"the generator {path} makes pictures of {size} pixels, but template.size is "
            f"{settings.template.size}; set template.size={size}"
        )
    if not _is_scene(path) and settings.inversion.init != "mean":
        raise ValueError(
            f"the latents of {path} do not hold a tracker's coefficients; set inversion.init=mean, and "
            "inversion.steps to what every frame needs (the paper: 100)"
        )
