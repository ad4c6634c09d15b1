"""A run's results for people: a contact sheet, a side-by-side clip, curves, a summary."""

from portrait_core.report.curves import curve_picture
from portrait_core.report.expression import expression_picture
from portrait_core.report.pictures import contact_sheet, frame_sheet, png_bytes, side_by_side, telling_frames
from portrait_core.report.summary import StageSummary, Summary, package_versions

__all__ = [
    "StageSummary",
    "Summary",
    "contact_sheet",
    "curve_picture",
    "expression_picture",
    "frame_sheet",
    "package_versions",
    "png_bytes",
    "side_by_side",
    "telling_frames",
]
