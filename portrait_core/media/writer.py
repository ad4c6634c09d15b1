"""Writing of videos, with or without alpha, at an exact rate and with the audio of the driving video."""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from portrait_core.errors import EncodeError, InputError
from portrait_core.media.binary import as_output, ffmpeg_binary
from portrait_core.media.containers import open_for_ffmpeg
from portrait_core.media.formats import VideoFormat, format_of
from portrait_core.media.reader import SCALER
from portrait_core.media.sound import Sound, sound_for

METADATA_KEYS = frozenset({"title", "artist", "album", "comment", "copyright", "date", "genre"})
"""Tags that every container of :data:`~portrait_core.media.formats.FORMATS` keeps."""


class VideoWriter:
    """Writes frames one by one to a video that appears, complete, when the writer is closed.

    ``sound`` says what became of the audio, for people: the source's codec, and whether it was copied.

    The suffix chooses the format (:data:`~portrait_core.media.formats.FORMATS`): ``.mp4`` is H.264 of RGB
    frames; ``.mov`` (ProRes 4444) and ``.webm`` (VP9) carry the alpha of RGBA frames. All are converted to
    and tagged as BT.709, limited range; ``.mp4`` and ``.mov`` have their index at the front. H.264 needs even
    sides: an odd width or height is padded by one repeated column or row at the right or the bottom, which
    ``encoded_size`` includes. The formats with alpha keep odd sizes.

    If the ``with`` block ends with an exception, nothing is left behind::

        with VideoWriter("out.mp4", (512, 512), info.frame_rate, audio_from="driver.mp4") as writer:
            for frame in frames:
                writer.write(frame)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: tuple[int, int],
        frame_rate: Fraction,
        audio_from: str | os.PathLike[str] | None = None,
        crf: int = 18,
        metadata: Mapping[str, str] | None = None,
        audio_start_s: float = 0.0,
        frame_count: int | None = None,
    ) -> None:
        """Start the encoder.

        Args:
            path: the file to write, ``.mp4``, ``.mov`` or ``.webm``; its folder must exist. An older file is
                replaced at the end.
            size: (width, height) of the frames, pixels.
            frame_rate: exact frames per second.
            audio_from: the driving video, whose audio track is carried over at its time relative to the first
                frame: copied where it stays whole and common players know its codec, else encoded as AAC
                (``.webm``: Opus), with at most two channels. A file without audio gives a video without
                audio.
            crf: x264's quality, 0 (lossless) to 51, and VP9's of the same number. ProRes 4444 has none,
                because it is always nearly lossless.
            metadata: tags of :data:`METADATA_KEYS`. None of the source's tags are carried over.
            audio_start_s: seconds from the source's first picture to the one that the first frame stands for.
            frame_count: number of frames that will be written, with which the audio ends; None leaves it
                whole.

        Raises:
            InputError: a value is unusable, or ``audio_from`` is not readable.
        """
        self.path = Path(path).expanduser().absolute()
        self._width, self._height = size
        self._format = format_of(self.path)
        self._check(frame_rate, crf, metadata or {})
        self.encoded_size = self._format.encoded_size(self._width, self._height)
        self.frames_written = 0
        length_s = float(frame_count / frame_rate) if frame_count is not None else None
        audio = sound_for(audio_from, self._format, audio_start_s, length_s)
        self.sound = audio.described(self._format) if audio is not None else "none"
        self._partial = self.path.with_name(
            f".{self.path.stem}.{secrets.token_hex(4)}.partial{self.path.suffix}"
        )
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process: subprocess.Popen[bytes] | None
        with ExitStack() as stack:
            file = stack.enter_context(open_for_ffmpeg(audio.source.path)) if audio is not None else None
            sound = (audio, file) if audio is not None and file is not None else None
            self._process = subprocess.Popen(
                _command(
                    self._format, self._partial, self.encoded_size, frame_rate, sound, crf, metadata or {}
                ),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                pass_fds=[file.fileno()] if file is not None else [],
            )

    def _check(self, frame_rate: Fraction, crf: int, metadata: Mapping[str, str]) -> None:
        if not self.path.parent.is_dir():
            raise InputError(f"the folder {self.path.parent} does not exist; make it first")
        if self._width < 2 or self._height < 2:
            raise InputError(f"a video needs at least 2x2 pixels; got {self._width}x{self._height}")
        if not isinstance(frame_rate, Fraction) or frame_rate <= 0:
            raise InputError(
                f"frame_rate must be a positive Fraction, such as 30000/1001; got {frame_rate!r}"
            )
        if not 0 <= crf <= 51:
            raise InputError(f"crf must be 0 to 51; got {crf}")
        if unknown := sorted(set(metadata) - METADATA_KEYS):
            raise InputError(f"videos do not keep the tags {unknown}; use some of {sorted(METADATA_KEYS)}")

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Add one frame of the writer's size.

        Args:
            frame: ``[H,W,3]`` uint8 RGB, or ``[H,W,4]`` with straight alpha (0 transparent, 255 opaque) for a
                format that carries it.

        Raises:
            InputError: the frame has another shape or type.
            EncodeError: ffmpeg stopped, for example because the disk is full.
        """
        expected = (self._height, self._width, self._format.channels)
        if frame.shape != expected or frame.dtype != np.uint8:
            raise InputError(f"expected a frame {expected} uint8; got {frame.shape} {frame.dtype}")
        if self._process is None or self._process.stdin is None:
            raise InputError(f"{self.path} is closed; open a new writer")
        width, height = self.encoded_size
        if (width, height) != (self._width, self._height):
            frame = np.pad(frame, ((0, height - self._height), (0, width - self._width), (0, 0)), "edge")
        try:
            self._process.stdin.write(np.ascontiguousarray(frame).data)
        except (BrokenPipeError, OSError) as error:
            raise self._failure() from error
        self.frames_written += 1

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            InputError: no frame was written.
            EncodeError: ffmpeg failed; nothing is left behind.
        """
        if self._process is None:
            return
        if not self.frames_written:
            self.discard()
            raise InputError(f"no frame was written to {self.path}; a video needs at least one")
        try:
            if self._process.stdin is not None:
                self._process.stdin.close()
            failed = self._process.wait() != 0
        except OSError as error:
            raise self._failure() from error
        if failed:
            raise self._failure()
        with open(self._partial, "rb") as written:
            os.fsync(written.fileno())
        os.replace(self._partial, self.path)
        self._process = None
        self._log.close()

    def discard(self) -> None:
        """Stop, and leave nothing behind."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # the pipe may be broken already
                self._process.stdin.close()
        self._process = None
        self._log.close()
        self._partial.unlink(missing_ok=True)

    def _failure(self) -> EncodeError:
        if self._process is not None:
            self._process.wait()
        self._log.seek(0)
        message = self._log.read()[-2000:].decode("utf-8", "replace").strip()
        message = re.sub(r" @ 0x[0-9a-f]+", "", message)
        self.discard()
        return EncodeError(
            f"ffmpeg could not write {self.path} after {self.frames_written} frames: {message}"
        )

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def _command(
    form: VideoFormat,
    target: Path,
    size: tuple[int, int],
    frame_rate: Fraction,
    sound: tuple[Sound, BinaryIO] | None,
    crf: int,
    metadata: Mapping[str, str],
) -> list[str]:
    # The earlier one of sound and picture starts at zero, the other as much later as in the source.
    delay = sound[0].picture_delay_s if sound else 0.0
    video = ffmpeg.input(
        "pipe:0",
        format="rawvideo",
        pix_fmt="rgba" if form.has_alpha else "rgb24",
        s=f"{size[0]}x{size[1]}",
        framerate=str(frame_rate),
    )
    frames = video.filter(
        "scale",
        out_color_matrix="bt709",
        out_range="tv",
        flags=SCALER,
    ).filter("format", form.pixel_format)
    tags = {"color_primaries": "bt709", "color_trc": "bt709", "colorspace": "bt709", "range": "tv"}
    frames = frames.filter("setparams", **tags)
    options: dict[str, Any] = {
        **form.options, **({"crf": crf} if form.crf_option else {}),
        "fps_mode": "passthrough", "map_metadata": -1, "map_chapters": -1,
        "colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "color_range": "tv",
        "fflags": "+bitexact", "f": form.muxer,
    }  # fmt: skip
    if delay > 0:
        # A whole number of ticks per frame, and ticks fine enough for the delay.
        ticks = frame_rate.numerator * math.ceil(90000 / frame_rate.numerator)
        frames = frames.filter("settb", f"1/{ticks}").filter("setpts", f"PTS+{round(delay * ticks)}")
        options["enc_time_base"] = f"1:{ticks}"
    streams = [frames]
    if sound:
        audio, file = sound
        streams.append(audio.stream(file))
        options |= {"c:a": "copy"} if audio.copied else form.new_audio
    options |= {f"metadata:g:{i}": f"{key}={value}" for i, (key, value) in enumerate(metadata.items())}
    output = ffmpeg.output(*streams, as_output(target), **options).overwrite_output()
    # A sound of which most is damaged does not cost the picture.
    output = output.global_args(
        "-max_error_rate", "1", "-nostdin", "-hide_banner", "-nostats", "-loglevel", "error"
    )
    return [str(part) for part in ffmpeg.compile(output, cmd=ffmpeg_binary())]
