"""Reading and writing of videos and images: exact frame rates, frame-accurate ranges, audio carried over.

Videos are always probed with PyAV (ffprobe is not needed). Decoding and encoding run an ffmpeg process: the
one on PATH when it is recent enough and has the encoders, else the one of imageio-ffmpeg.
"""

from portrait_core.media.formats import FORMATS
from portrait_core.media.frames import FrameWriter, frame_png
from portrait_core.media.image import at_most, read_image
from portrait_core.media.probe import VideoInfo, probe
from portrait_core.media.reader import read_frames
from portrait_core.media.writer import VideoWriter

__all__ = [
    "FORMATS",
    "FrameWriter",
    "VideoInfo",
    "VideoWriter",
    "at_most",
    "frame_png",
    "probe",
    "read_frames",
    "read_image",
]
