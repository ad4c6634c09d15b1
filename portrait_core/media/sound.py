"""The sound that a clip carries: which part of the driving video's, and whether it is copied or encoded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ffmpeg

from portrait_core.media.containers import FROM_FILE, file_options
from portrait_core.media.formats import VideoFormat
from portrait_core.media.probe import Timeline, scan

TAIL_S = 0.05
"""Seconds by which a sound may outlast the picture and still be copied whole: the last packet of every codec
is padded, that of AAC at a low rate by up to 46 ms."""
_LEAST_S = 0.001
# AAC is played at these two rates everywhere, and Opus has the second alone. Sound of more than two channels
# is mixed down, because not every player does so, and few headphones have six.
_SAMPLES = {"channel_layouts": "mono|stereo", "sample_rates": "44100|48000"}


@dataclass(frozen=True)
class Sound:
    """Part of the sound of a driving video, on a clock whose zero is the clip's first picture."""

    source: Timeline
    """The driving video, with an audio track."""
    start_s: float
    """Seconds from the source's first picture to the clip's."""
    end_s: float | None
    """Seconds after the clip's first picture at which the sound is cut off; None where it ends before."""
    copied: bool
    """True if its packets are copied, false if it is decoded and encoded anew."""
    cut: bool
    """True if more than the padding of its last packet is left out."""

    @property
    def picture_delay_s(self) -> float:
        """Seconds from the start of the clip to its first picture, where the sound starts earlier; else 0."""
        return max(0.0, -self.source.audio_delay_s) if not self.start_s else 0.0

    def described(self, form: VideoFormat) -> str:
        """Return the source's codec and what is done, for people."""
        if self.copied:
            return f"{self.source.audio_codec}, copied"
        cut = "cut and " if self.cut else ""
        return f"{self.source.audio_codec}, {cut}encoded as {form.new_audio_name}"

    def stream(self, file: BinaryIO) -> Any:
        """Return ffmpeg's stream of the sound, which begins when the clip does or later.

        Args:
            file: the source, open for the process of ffmpeg alone.
        """
        delay = self.source.audio_delay_s
        shift = {"itsoffset": f"{self.source.audio_rebase_s + max(delay, 0.0):.6f}"}
        sound = ffmpeg.input(FROM_FILE, **shift, **file_options(file))[str(self.source.audio_stream)]
        if self.copied:
            return sound
        # Where packets are missing there is silence; without it, all that follows would come too early.
        sound = sound.filter("aresample", **{"async": 1}).filter("aformat", **_SAMPLES)
        earlier = max(0.0, -delay)  # on ffmpeg's clock the source's first picture is as much after zero
        cut = {"start": f"{earlier + self.start_s:.6f}"} if self.start_s else {}
        if self.end_s is not None:
            cut["end"] = f"{earlier + self.start_s + self.end_s:.6f}"
        if cut:
            sound = sound.filter("atrim", **cut)
        if self.start_s:
            sound = sound.filter("asetpts", f"PTS-{earlier + self.start_s:.6f}/TB")
        # Where nothing decodes, a moment of silence: without any sample ffmpeg would write no file.
        return sound.filter("apad", whole_len=1024)


def sound_for(
    path: str | os.PathLike[str] | None,
    form: VideoFormat,
    start_s: float = 0.0,
    length_s: float | None = None,
) -> Sound | None:
    """Choose the sound of a clip.

    A sound that is cut is encoded anew, because packets end where samples do not; so is one whose codec
    common players of the format do not play.

    Args:
        path: the driving video.
        form: format of the clip.
        start_s: seconds from the source's first picture to the clip's.
        length_s: seconds of the clip; None leaves the sound whole.

    Returns:
        The sound; None where the video has none, or none during the clip.
    """
    source = scan(Path(path)) if path is not None else None
    if source is None or source.audio_stream is None:
        return None
    begins_s = source.audio_delay_s - start_s
    ends_s = begins_s + source.info.audio_duration_s
    is_long = length_s is not None and ends_s > length_s + TAIL_S
    if (start_s and ends_s < _LEAST_S) or (length_s is not None and begins_s > length_s - _LEAST_S):
        return None
    cut = bool(start_s) or is_long
    copied = not cut and source.audio_codec in form.copied_audio
    ends_later = length_s is not None and ends_s > length_s
    return Sound(source, start_s, length_s if ends_later and not copied else None, copied, cut)
