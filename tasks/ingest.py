"""Looking at what the user gave: is it a picture and a video, and which units of the store are theirs."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from safetensors import SafetensorError, safe_open

from portrait_core.config import Settings
from portrait_core.errors import InputError
from portrait_core.media import VideoInfo, probe, read_image
from portrait_core.store import file_digest
from tasks.job import Job, make_stage_keys, short_hash, unit_name, weight_files

SMALLEST_SIDE = 64
"""A portrait or a video with a shorter side has no face that could be tracked."""


def ingest(portrait: str, video: str, store: str, settings: Settings) -> Job:
    """Check both inputs, take their digests and name the units of the pair. Nothing is written.

    Raises:
        InputError: when the portrait is no picture, or the video no video of two frames or more.
        ValueError: when weights that the settings ask for are missing or do not go with the settings.
    """
    height, width = read_image(portrait).shape[:2]
    if min(height, width) < SMALLEST_SIDE:
        raise InputError(
            f"the portrait {portrait} is {width}x{height} pixels; give one of at least "
            f"{SMALLEST_SIDE} pixels on its shorter side, better 512 and more"
        )
    info = probe(video)
    _check_video(video, info)
    frames = min(info.frame_count, settings.media.max_frames or info.frame_count)
    digests = _digest(portrait), _digest(video)
    files = weight_files(settings)
    _check_generator(files["generator"], settings)
    weights = {name: _digest(path) for name, path in files.items()}
    keys = make_stage_keys(*digests, frames, settings, weights)
    # another tracker's arrays have other shapes: it has units of its own
    tracker = [settings.tracking.tracker] if settings.tracking.tracker != "embedded" else []
    portrait_unit = unit_name(portrait, short_hash(digests[0], str(settings.template.size), *tracker))
    video_unit = unit_name(video, short_hash(digests[1], str(frames), *tracker))
    return Job(
        store=store if "://" in store else str(Path(store).absolute()),
        portrait_path=str(Path(portrait).absolute()),
        video_path=str(Path(video).absolute()),
        portrait_unit=portrait_unit,
        video_unit=video_unit,
        reenactment_unit=f"{portrait_unit}--{video_unit}--{settings.profile}",
        frames=frames,
        frame_rate=str(info.frame_rate),
        has_audio=info.has_audio,
        inputs={"portrait": digests[0], "video": digests[1]},
        stage_keys=keys,
        weights=weights,
        settings=settings,
    )


def _digest(path: str | Path) -> str:
    """A file's digest, taken once while the file is the same: clips of a dataset share weights and videos."""
    found = Path(path).stat()
    return _digest_of(str(path), found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache(maxsize=4096)
def _digest_of(path: str, *unchanged: int) -> str:
    return file_digest(path)


def _check_video(video: str, info: VideoInfo) -> None:
    if info.frame_count < 2:
        raise InputError(
            f"the driving video {video} has one frame: there is no motion to take over. Give a clip of two "
            "frames or more; its expressions and head pose drive the portrait"
        )
    if min(info.width, info.height) < SMALLEST_SIDE:
        raise InputError(
            f"the driving video {video} is {info.width}x{info.height} pixels, too small to find a face in; "
            f"give one of at least {SMALLEST_SIDE} pixels on its shorter side"
        )


def _check_generator(path: Path, settings: Settings) -> None:
    """Look at what the generator's file says of itself, before any work and without loading PyTorch."""
    try:
        with safe_open(str(path), framework="np") as file:
            about = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"cannot read the generator {path}: {error}. Network files (.pkl) are converted once by "
            "`portrait models import FILE`"
        ) from error
    about = json.loads(about["generator"]) if "generator" in about else about
    if about.get("kind", "triplane") != "triplane":
        raise ValueError(f"{path} holds a 2D generator; reenactment needs a tri-plane generator (EG3D)")
    size = about.get("image_resolution", settings.template.size)
    if size != settings.template.size:
        raise ValueError(
            f"the generator {path} makes pictures of {size} pixels, but template.size is "
            f"{settings.template.size}; set template.size={size}"
        )
    own = json.loads(about.get("settings", "{}"))
    if own.get("mapping_kind", "stylegan") != "scene" and settings.inversion.init != "mean":
        raise ValueError(
            f"the latents of {path} do not hold a tracker's coefficients; set inversion.init=mean, and "
            "inversion.steps to what every frame needs (the paper: 100)"
        )
