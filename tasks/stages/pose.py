"""Stage ``pose``: the cameras that the clip is rendered with."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.pipeline import File, Job, Note, Stage
from portrait_core.pipeline.ledger import done_frames
from portrait_core.pipeline.results import StageResult, Stopwatch
from portrait_core.pipeline.weights import head_weights, landmark_weights, tracking_weights
from portrait_core.weights.readers.npy_files import read_npy
from tasks.context import head, landmarker, read_track, use_threads
from tasks.running import does
from tasks.trackers import own_frame, tracker

if TYPE_CHECKING:
    from portrait_core.tracking.same_face import Match

CAMERAS, AIM = "output_cameras.npy", "aim"
"""File of the camera labels, and note of how they were aimed."""

POSE = Stage(
    name="pose",
    title="aim head pose",
    version=5,
    unit="reenactment",
    reads=("portrait", "layers", "person", "fit", "template", "inversion", "tuning"),
    settings=("render", "composite", "tracking"),
    weights=(landmark_weights, tracking_weights, head_weights),
    writes=(File(CAMERAS), Note(AIM)),
    drop_with="clip",
)


@does(POSE, precision="job")
def pose(job: Job) -> StageResult:
    """Take the driver's poses, and correct them.

    The correction is by the frame that shows the portrait itself, or by the tracker's readings of a few
    rendered frames.
    """
    watch = Stopwatch("pose", 0, 1)
    if done_frames(job, "pose").all():
        return watch.result(0)
    from portrait_core.rendering.pose_renderer import held_cameras, target_cameras

    driver, portrait = read_track(job.output("fit")), read_track(job.output("portrait"))
    chosen = job.settings.render
    aims = chosen.calibration_frames > 0 and chosen.pose_transfer != "none"
    match = own_frame(job, driver) if aims else None
    cameras = target_cameras(driver.cameras, portrait.cameras, chosen, match)
    if aims and match is None:
        cameras = _aimed(job, cameras, driver.ok & done_frames(job, "inversion"))
        cameras = held_cameras(cameras, portrait.cameras, chosen)
    if chosen.motion == "head" and chosen.travel > 0 and chosen.pose_transfer != "none":
        cameras = _travelling(job, cameras, match)
    content = io.BytesIO()
    np.save(content, cameras)
    output = job.output("pose")
    output.put_bytes(CAMERAS, content.getvalue())
    output.write_note(AIM, {} if match is None else match._asdict())
    output.commit()
    return watch.result(1)


def output_cameras(job: Job) -> NDArray[np.float32]:
    """Return camera labels ``[T,25]`` of the output.

    Raises:
        MissingChunk: when they are not in the store; the stage will make them again.
    """
    from portrait_core.errors import MissingChunk

    output = job.output("pose")
    data = output.get_bytes(CAMERAS)
    if data is None:
        raise MissingChunk(f"{output.path}/{CAMERAS}", [0])
    return np.asarray(read_npy(data), np.float32)


def match_of(job: Job) -> Match | None:
    """Return the driver's frame that shows the portrait itself, where the stage found one."""
    from portrait_core.tracking.same_face import Match

    note = job.output("pose").read_fields(AIM)
    frame, roll_rad = note.get("frame"), note.get("roll_rad")
    if type(frame) is not int or not 0 <= frame < job.frames or not isinstance(roll_rad, int | float):
        return None
    return Match(frame, float(roll_rad))


def _travelling(job: Job, cameras: NDArray[np.float32], match: Match | None) -> NDArray[np.float32]:
    """Let the head of cameras ``[T,25]`` go where the driver's goes."""
    import torch

    from portrait_core.rendering.neck import neck_joint, resting
    from portrait_core.rendering.travel import DriverHead, with_travel

    driver, portrait = read_track(job.output("fit")), read_track(job.output("portrait"))
    joint = neck_joint(head(job), resting(head(job), torch.from_numpy(portrait.shape))).numpy()
    seen = DriverHead(driver.cameras, driver.crop_center_px, driver.crop_side_px)
    rest, chosen = None if match is None else match.frame, job.settings.render
    return with_travel(cameras, seen, joint, rest, chosen)


def _aimed(job: Job, wanted: NDArray[np.float32], usable: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Correct cameras ``[T,25]`` by what the tracker reads off a few frames that are rendered with them."""
    from portrait_core.rendering.pose_calibration import aimed_cameras, calibration_frames
    from portrait_core.tracking.measure import seen

    threads = use_threads(job, alone=True)
    frames = calibration_frames(wanted, job.settings.render.calibration_frames, usable)
    pictures = _rendered(job, frames, wanted)
    points = landmarker(job, threads).detect(np.stack(pictures)).points
    found = seen(points)
    if not found.any():
        return wanted  # the tracker finds no face in the result; measuring will say so
    # by a shape of their own, as the driver is read: the portrait's was fitted to one picture, and the pose
    # that belongs to it would be off by as much again
    read = tracker(job).clip(points, found, lambda: pictures, cuts=np.ones(len(points), bool)).cameras
    return aimed_cameras(wanted, frames, read, found, job.settings.render)


def _rendered(job: Job, frames: list[int], cameras: NDArray[np.float32]) -> list[NDArray[np.uint8]]:
    """Render ``frames`` with their ``cameras``."""
    import torch

    from tasks.stages.render import frame_inputs, pose_renderer, rendered

    renderer = pose_renderer(job)

    def picture(i: int) -> NDArray[np.uint8]:
        camera = torch.from_numpy(cameras[i : i + 1])
        return rendered(renderer, frame_inputs(job, i), camera).image

    return [picture(i) for i in frames]
