"""Camera labels, head poses and their smoothing; EG3D's conventions."""

from portrait_core.cameras.labels import (
    FOCAL,
    RADIUS,
    angles_from_labels,
    crop_rays,
    degrees,
    intrinsics,
    labels_from_rotations,
    offsets_from_labels,
    orbit_labels,
    orbit_rotation,
    project_to_crop,
    rotations_from_labels,
    smooth_labels,
    window_means,
)

__all__ = [
    "FOCAL",
    "RADIUS",
    "angles_from_labels",
    "crop_rays",
    "degrees",
    "intrinsics",
    "labels_from_rotations",
    "offsets_from_labels",
    "orbit_labels",
    "orbit_rotation",
    "project_to_crop",
    "rotations_from_labels",
    "smooth_labels",
    "window_means",
]
