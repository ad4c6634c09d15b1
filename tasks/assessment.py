"""Reading of a method's clip for an evaluation: which pictures it shows, and what networks read of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from portrait_core.cameras import angles_from_labels
from portrait_core.media import at_most
from portrait_core.metrics.coefficient_distances import UNITS
from portrait_core.metrics.follow import follow_rows
from portrait_core.metrics.reader_slopes import READER
from portrait_core.pipeline import Job
from portrait_core.pipeline.ledger import done_frames
from portrait_core.pipeline.ranges import frames_shown
from portrait_core.tracking.crop import sample_square
from portrait_core.tracking.measure import seen
from tasks.animators import animator_source, animator_square, crop_of, face_square
from tasks.context import device_of, driving_frames, landmarker, read_portrait
from tasks.estimates import Reading, read_coefficients, split_reading
from tasks.expressions import SeenClip, fitted_track, measured_clip, read_landmarks, seen_driver
from tasks.networks import feature_network, identity_network
from tasks.pages import face_of, for_generator, page_of

if TYPE_CHECKING:
    from portrait_core.metrics.likeness import Square
    from portrait_core.tracking.fit import FaceTrack
    from portrait_core.tracking.trackers import Frames

Picture = NDArray[np.uint8]
Arrays = dict[str, NDArray[np.generic]]
FACE_ENLARGEMENT, FACE_PX = 1.25, 256
"""Side of the square in which pixels are compared, over the longer side of the landmarks' box; and that side
in pixels."""
SHOWN_BY = {"render": "views", "animate": "animate_views"}
"""Stages whose array ``frames`` is a clip, each with the stage that shows it from other sides."""


@dataclass(frozen=True)
class ShownSquare:
    """The square of the photograph that a method draws, which may be turned.

    Attributes:
        center_px: ``(x, y)`` of its centre in continuous pixels of the photograph.
        side_px: its side.
        roll_rad: its turn, clockwise in the image.
        size: side of the method's pictures in pixels.
    """

    center_px: tuple[float, float]
    side_px: float
    roll_rad: float
    size: int

    def cut(self, picture: Picture, square: Square) -> Picture:
        """Cut an upright square of the photograph out of one of the method's pictures ``[S,S,3]``."""
        scale = self.size / self.side_px
        (center,) = self._turned(np.array([square.center_px]) - self.center_px, -self.roll_rad) * scale
        middle = center + self.size / 2
        return sample_square(picture, middle, square.side_px * scale, -self.roll_rad, square.size, cubic=True)

    def on_photograph(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return points ``[...,2]`` of the method's pictures in pixels of the photograph."""
        away = (np.asarray(points, np.float64) - self.size / 2) * (self.side_px / self.size)
        return self._turned(away, self.roll_rad) + self.center_px

    def _turned(self, away: NDArray[np.floating], angle_rad: float) -> NDArray[np.float64]:
        cos, sin = np.cos(angle_rad), np.sin(angle_rad)
        return np.asarray(away @ np.array([[cos, sin], [-sin, cos]]))


@dataclass(frozen=True)
class ShownClip:
    """The clip of a method.

    Attributes:
        source: the portrait in the method's own crop ``[S,S,3]``.
        square: that crop in the photograph.
        pictures: gives the frames ``[S,S,3]``, whenever it is called; a frame that could not be made is shown
            by its neighbour.
        views: frames seen from other sides ``[V,S,S,3]``; V is 0 where none were asked for.
    """

    source: Picture
    square: ShownSquare
    pictures: Frames
    views: NDArray[np.uint8]


def shown_clip(job: Job) -> ShownClip:
    """Return the clip that a job's method made."""
    (stage,) = (name for name in SHOWN_BY if name in job.stages)
    output, frames = job.output(stage), frames_shown(done_frames(job, stage)).tolist()
    in_crop = _in_crop(job) if stage == "render" and not job.stage(stage).variant else _unchanged

    def pictures() -> Iterator[Picture]:
        return (in_crop(output.read("frames", i, i + 1)[0]) for i in frames)

    views = np.zeros((0, 1, 1, 3), np.uint8)
    if SHOWN_BY[stage] in job.stages and job.settings.evaluation.views:
        views = np.stack([in_crop(one) for one in job.output(SHOWN_BY[stage]).read("views")])
    if stage == "animate":
        source, square = animator_source(job), animator_square(job)
    elif job.stage(stage).variant == "2d":
        return _of_2d(job, pictures, views)
    else:
        source, square = crop_of(job), face_square(job)
    return ShownClip(source, ShownSquare(square.center_px, square.side_px, 0.0, len(source)), pictures, views)


def _unchanged(picture: Picture) -> Picture:
    return picture


def _in_crop(job: Job) -> Callable[[Picture], Picture]:
    """Return a function from a drawn frame to the portrait's face crop of it ``[S,S,3]``.

    Frames with the photograph's pixels cover more than the crop (:mod:`portrait_core.rendering.page`).
    """
    page, size = page_of(job), job.settings.template.size
    return lambda picture: for_generator(page, size, face_of(page, picture))


def _of_2d(job: Job, pictures: Frames, views: NDArray[np.uint8]) -> ShownClip:
    from tasks.fitting import own_crop

    crop = own_crop(job)
    if crop is None:
        raise ValueError(
            "a clip of a 2D generator has a crop of its own; its job names a tri-plane generator"
        )
    square = ShownSquare(crop.center_px, crop.side_px, crop.roll_rad, crop.size)
    return ShownClip(job.output("render").read("source")[0], square, pictures, views)


class Assessment:
    """Everything that an evaluation reads of one clip.

    Args:
        job: a job whose pipeline shows a clip.
        threads: of the landmark networks.
    """

    def __init__(self, job: Job, threads: int) -> None:
        self._job, self._threads, self._chosen = job, threads, job.settings.evaluation
        self._shown = shown_clip(job)

    @cached_property
    def _points(self) -> NDArray[np.float32]:
        return self._landmarks(self._shown.pictures())

    @cached_property
    def _track(self) -> FaceTrack | None:
        return fitted_track(self._job, self._points) if seen(self._points).any() else None

    @cached_property
    def _driver(self) -> SeenClip:
        return seen_driver(self._job)

    def arrays(self) -> Arrays:
        """Return the arrays that the stage ``assess`` writes."""
        found: Arrays = {"landmarks": self._points} | self._identities() | self._features()
        for estimator in self._chosen.estimators:
            found |= self._readings(estimator)
        if self._chosen.truth:
            found["pictures"] = np.stack(list(self._pictures.values()), axis=1)
        return found | self._strips()

    def _strips(self) -> Arrays:
        """Return a few small pictures of the clip and its driver, each behind the portrait."""
        from portrait_core.baselines.crops import clip_square, cut
        from portrait_core.evaluation.sheet import TILE_PX, shown_frames

        square, source = clip_square(self._driver.points), self._shown.source
        chosen = shown_frames(self._job.frames)
        driver = [cut(one, *square, TILE_PX) for one in _chosen(driving_frames(self._job), chosen)]
        clip = _chosen(self._shown.pictures(), chosen)
        center = np.full(2, len(source) / 2)
        small = [cut(one, center, len(one), TILE_PX) for one in (source, *clip)]
        return {"strip": np.stack(small), "strip_driver": np.stack([small[0], *driver])}

    def follow(self) -> dict[str, Any]:
        """Report how the regions of the face follow the driver's; empty where no frame shows a face."""
        if self._track is None:
            return {}
        driver = measured_clip(self._job, self._driver)
        result = SeenClip(self._points, self._track, self._shown.pictures)
        measured = measured_clip(self._job, result, painted=True)
        rows: dict[str, Any] = follow_rows(driver, {"result": measured}, READER)["follow"]["result"]
        return rows

    def names(self) -> dict[str, Any]:
        """Return the names of what the numbers are.

        They are those of the face-recognition network, of the Fréchet distance, and of the columns of the
        array ``pictures``.
        """
        return {
            "identity": identity_network(self._job, self._threads).name,
            "features": feature_network(self._job).variant,
            "pictures": list(self._pictures) if self._chosen.truth else [],
        }

    @cached_property
    def _pictures(self) -> dict[str, NDArray[np.float64]]:
        """Distances from the driver's frames by name ``[T]``, in a square around the portrait's face.

        It lies within the crops of all methods, so that their numbers compare.
        """
        from portrait_core.baselines.crops import clip_square
        from portrait_core.metrics.keypoint_distance import VARIANT, keypoint_distance
        from portrait_core.metrics.likeness import FLICKER, Square, error_changes
        from portrait_core.metrics.picture_distances import picture_distances
        from tasks.networks import distance_networks

        job, longest = self._job, self._job.settings.media.portrait_max_side
        center, side = clip_square(job.output("portrait").read("landmarks"), FACE_ENLARGEMENT)
        face = Square((float(center[0]), float(center[1])), side, FACE_PX)
        shown = self._shown.square
        results = [shown.cut(picture, face) for picture in self._shown.pictures()]
        truths, shrunk = [], 1.0
        for frame in driving_frames(job):
            smaller = at_most(frame, longest)
            shrunk = len(smaller) / len(frame)
            truths.append(face.cut(smaller))
        found = dict(picture_distances(results, truths, distance_networks(job)).values)
        driver = self._driver.points * shrunk
        points = face.points(shown.on_photograph(self._points)), face.points(driver)
        found[VARIANT] = keypoint_distance(*points, FACE_PX).values
        return found | {FLICKER: error_changes(results, truths)}

    def _landmarks(self, pictures: Iterable[Picture]) -> NDArray[np.float32]:
        model = landmarker(self._job, self._threads)
        return read_landmarks(model, pictures, self._job.settings.tracking.batch)

    def _identities(self) -> Arrays:
        """Embed the faces of the clip, the portrait, the views and the true frames; NaN without a face."""
        job, embed = self._job, identity_network(self._job, self._threads).embed
        own = job.output("portrait").read("landmarks")
        found: Arrays = {
            "identity": self._in_batches(self._shown.pictures(), embed, self._points),
            "identity_source": embed(read_portrait(job)[None], own),
        }
        if len(self._shown.views):
            points = self._landmarks(iter(self._shown.views))
            found["identity_views"] = embed(self._shown.views, points)
        if self._chosen.truth:
            found["identity_driver"] = self._in_batches(driving_frames(job), embed, self._driver.points)
        return found

    def _features(self) -> Arrays:
        from portrait_core.metrics.picture_features import picture_features

        job, network = self._job, feature_network(self._job)

        def describe(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
            return picture_features(pictures, network, job.settings.evaluation.batch, device_of(job))

        return {
            "features": self._in_batches(self._shown.pictures(), describe),
            "features_source": describe(self._shown.source[None]),
        }

    def _readings(self, estimator: str) -> Arrays:
        """Return poses and expressions of the clip and its driver, as one estimator reads them."""
        if estimator == "embedded":
            result, driver = self._embedded(self._track), self._embedded(self._driver.track)
        else:
            stored = self._job.output(f"read_{estimator}").read("coefficients")
            read = read_coefficients(self._job, estimator, self._shown.pictures(), self._points)
            result, driver = split_reading(estimator, read), split_reading(estimator, stored)
        return {
            f"{estimator}_pose": result.pose,
            f"{estimator}_expression": result.expression,
            f"{estimator}_driver_pose": driver.pose,
            f"{estimator}_driver_expression": driver.expression,
        }

    def _embedded(self, track: FaceTrack | None) -> Reading:
        """Return yaw, pitch and roll in radians ``[T,3]`` and the units' strengths ``[T,52]``."""
        if track is None:
            nothing = np.full((self._job.frames, 3 + UNITS), np.nan, np.float32)
            return Reading(nothing[:, :3], nothing[:, 3:])
        angles = angles_from_labels(track.cameras).astype(np.float32)
        return Reading(*(_unseen(rows, track.ok) for rows in (angles, track.expression[:, :UNITS])))

    def _in_batches(
        self,
        pictures: Iterable[Picture],
        describe: Callable[..., NDArray[np.floating]],
        rows: NDArray[np.floating] | None = None,
    ) -> NDArray[np.floating]:
        """Describe pictures, some at a time, each with its row of ``rows``."""
        size, found, begin = self._chosen.batch, [], 0
        for batch in _batches(pictures, size):
            more = () if rows is None else (rows[begin : begin + len(batch)],)
            found.append(describe(batch, *more))
            begin += len(batch)
        return np.concatenate(found)


def _chosen(pictures: Iterable[Picture], frames: Sequence[int]) -> list[Picture]:
    """Return the pictures of some frames, which may come more than once."""
    found = {i: picture for i, picture in enumerate(pictures) if i in frames}
    return [found[i] for i in frames]


def _batches(pictures: Iterable[Picture], size: int) -> Iterator[NDArray[np.uint8]]:
    waiting: list[Picture] = []
    for picture in pictures:
        waiting.append(picture)
        if len(waiting) == size:
            yield np.stack(waiting)
            waiting.clear()
    if waiting:
        yield np.stack(waiting)


def _unseen(rows: NDArray[np.floating], ok: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return rows ``[T,n]`` with NaN where no face was seen ``[T]``."""
    return np.where(ok[:, None], rows, np.nan).astype(np.float32)
