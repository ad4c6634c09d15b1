"""The paper's tracker for the stages: DECA and FLAME for expressions, Deep3DFaceRecon for cameras."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from portrait_core.models.cache import cached
from portrait_core.models.needs import DECA_MODELS, weight_file
from portrait_core.pipeline import Job
from tasks.context import device_of, head, look_key, read_portrait
from tasks.trackers import (
    DECA_CODE,
    EYES,
    Arrays,
    ClipHead,
    Frames,
    Moves,
    TrackedPortrait,
    gains,
    read_moves,
)

if TYPE_CHECKING:
    import torch

    from portrait_core.faces.driven_eyes import EyePicture
    from portrait_core.faces.flame_template import FlameSource, FlameTemplateRenderer
    from portrait_core.faces.head import MorphableHead
    from portrait_core.faces.template import Template
    from portrait_core.models.flame_files import LandmarkEmbedding
    from portrait_core.tracking.fit import FaceTrack
    from portrait_core.tracking.paper_tracker import LandmarkError, PaperTracker

_LEAST_TEXTURE = 256


@dataclass(frozen=True)
class _Flame:
    head: MorphableHead
    embedding: LandmarkEmbedding


class DecaTracker:
    """See :class:`tasks.trackers.Tracker`."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._digests = "-".join(job.weights[name][:16] for name in DECA_MODELS)

    def portrait(self, image: NDArray[np.uint8], points: NDArray[np.float32]) -> TrackedPortrait:
        """DECA's code and EG3D's crop with its camera."""
        from portrait_core.tracking.paper_tracker import face_track

        found = self._networks().track([image], points, self._job.settings.template.size)
        code = np.concatenate([part.reshape(1, -1).numpy() for part in found.code], axis=1)
        place = found.wild.placement
        kept = (code, found.tform.numpy(), np.concatenate([place.factor, place.shift], axis=1))
        track = face_track(found, self._error().of(found, points))
        more = dict(zip(DECA_CODE, kept, strict=True))
        return TrackedPortrait(track, found.wild.images[0], more)

    def clip(
        self,
        points: NDArray[np.float32],
        ok: NDArray[np.bool_],
        frames: Frames,
        shape: NDArray[np.floating] | None = None,
        neighbours: bool = True,
    ) -> FaceTrack:
        """Every frame by itself; ``shape`` and ``neighbours`` change nothing."""
        from portrait_core.tracking.paper_tracker import track_clip

        return track_clip(self._networks(), self._error(), frames(), points, ok)

    def retarget(self, source: FaceTrack, driver: FaceTrack) -> Arrays:
        """The driver's expression and jaw; with ``eyes=driven`` the embedded head's eyes beside them."""
        from portrait_core.faces.flame_retarget import retarget_codes

        settings = self._job.settings.template
        expression, jaw = retarget_codes(
            driver.expression,
            driver.jaw,
            source.expression[0],
            driver.ok,
            settings.transfer,
            settings.jaw_gain,
        )
        arrays: Arrays = {"expression": expression, "jaw": jaw}
        return arrays | ({EYES: self._driven_eyes()} if settings.eyes == "driven" else {})

    def still(self, source: FaceTrack) -> Arrays:
        """The portrait's own codes."""
        arrays: Arrays = {"expression": source.expression, "jaw": source.jaw}
        return arrays  # nothing draws them: an edit has no template

    def _driven_eyes(self) -> NDArray[np.float32]:
        """The portrait's own expression in the embedded head's units, with the driver's lids and gaze."""
        from portrait_core.faces.driven_eyes import fit_portrait, with_eyes_of
        from portrait_core.faces.retarget import retarget_clip
        from portrait_core.tracking.fit import fit_clip
        from portrait_core.tracking.measure import seen

        job, model, tracking = self._job, head(self._job), self._job.settings.tracking
        points = job.output("landmarks").read("landmarks")
        ok = seen(points)
        driver = fit_clip(model, points, ok, tracking)
        own = fit_portrait(model, job.output("portrait").read("landmarks"), tracking)
        # relative: the embedded head's lids are measured against the driver's own rest
        driven, _ = retarget_clip(
            model,
            driver.shape,
            driver.expression,
            own.shape,
            own.expression[0],
            "relative",
            gains(job),
            ok,
        )
        return with_eyes_of(own.expression[0], driven, model.expression_names)

    def moves(self, start: int, stop: int) -> Moves:
        """Expression and jaw; with ``eyes=driven`` the embedded head's eyes."""
        driven = self._job.settings.template.eyes == "driven" and self._job.goal != "edit"
        more = (EYES,) if driven else ()
        return read_moves(self._job, self.still, ("expression", "jaw", *more), start, stop)

    def render(self, moves: Moves) -> Template:
        """The paper's template; with ``eyes=driven`` of a portrait whose eyes were painted first."""
        portraits = self._eye_picture.paint(moves[EYES]) if EYES in moves else None
        return self._renderer.render(moves["expression"], moves["jaw"], portraits)

    def clip_head(self, device: torch.device) -> ClipHead:
        """FLAME over the crop. It has no mesh in the generator's space that would belong to the device."""
        from portrait_core.inversion.clip_heads import FlameClipHead

        moves = self.moves(0, self._job.frames)
        return FlameClipHead(self._renderer, moves["expression"], moves["jaw"])

    def _networks(self) -> PaperTracker:
        """The process's encoders."""
        from portrait_core.models.mat_files import read_similarity_landmarks
        from portrait_core.models.torch_files import read_deca, read_deep3d
        from portrait_core.tracking.deca import DecaEncoder
        from portrait_core.tracking.deep3d import Deep3DEncoder
        from portrait_core.tracking.five_points import standard_face
        from portrait_core.tracking.paper_tracker import PaperTracker

        device = device_of(self._job)

        def build() -> PaperTracker:
            return PaperTracker(
                DecaEncoder.from_state(read_deca(self._file("deca")).e_flame).to(device),
                Deep3DEncoder.from_state(read_deep3d(self._file("deep3d")).net_recon).to(device),
                standard_face(read_similarity_landmarks(self._file("deep3d_landmarks")).landmarks),
                self._job.settings.tracking.batch,
            )

        return cached("encoders", self._digests, build, device, self._job.settings.tracking.batch)

    def _flame(self) -> _Flame:
        """The process's FLAME head and the landmarks on it."""
        from portrait_core.faces.flame import flame_head
        from portrait_core.models.flame_files import read_flame, read_landmark_embedding

        def build() -> _Flame:
            marks = read_landmark_embedding(self._file("flame_landmarks"))
            return _Flame(flame_head(read_flame(self._file("flame")), landmarks=marks), marks)

        return cached("flame", self._digests, build)

    def _error(self) -> LandmarkError:
        from portrait_core.faces.flame import FlameLandmarks
        from portrait_core.tracking.paper_tracker import LandmarkError

        flame = self._flame()
        return LandmarkError(flame.head, FlameLandmarks(flame.embedding, flame.head.faces))

    @cached_property
    def _renderer(self) -> FlameTemplateRenderer:
        """The process's renderer of this portrait, held for as long as this tracker."""
        from portrait_core.faces.flame_template import FlameTemplateRenderer
        from portrait_core.faces.uv_maps import UvMapper, read_obj_layout, read_uv_mask

        settings = self._job.settings.template

        def build() -> FlameTemplateRenderer:
            # a texture of twice the crop's side: the face fills half of either
            layout = read_obj_layout(self._file("head_template"))
            mapper = UvMapper(layout, max(2 * settings.size, _LEAST_TEXTURE))
            region = read_uv_mask(self._file("uv_face_eye_mask"))
            return FlameTemplateRenderer(
                self._flame().head, mapper, self._source(), region, settings.feather_px
            )

        return cached("template", look_key(self._job), build, alone=True)

    def _source(self) -> FlameSource:
        import torch

        from portrait_core.faces.flame_template import FlameSource
        from portrait_core.tracking.deca import split_code
        from portrait_core.tracking.wild_crop import CropPlacement

        output = self._job.output("portrait")
        code, tform, place = (output.read(name) for name in DECA_CODE)
        return FlameSource(
            image=read_portrait(self._job),
            portrait=output.read("crop")[0],
            placement=CropPlacement(place[:, :2], place[:, 2:]),
            code=split_code(torch.from_numpy(code)),
            tform=torch.from_numpy(tform),
        )

    @cached_property
    def _eye_picture(self) -> EyePicture:
        """The process's portrait that takes other eyes, held for as long as this tracker."""
        from portrait_core.faces.driven_eyes import EyePicture

        job, settings = self._job, self._job.settings

        def build() -> EyePicture:
            source = self._source()
            marks = job.output("portrait").read("landmarks")
            return EyePicture.build(
                head(job),
                source.portrait,
                source.placement,
                marks,
                settings.tracking,
                settings.template.supersample,
            )

        return cached("eyes", look_key(job), build, alone=True)

    def _file(self, name: str) -> str:
        return str(weight_file(self._job.settings, name))
