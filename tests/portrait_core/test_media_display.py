"""Videos as a player displays them: colours by their tags, compared with formulas; pixel aspect; rotation."""

from __future__ import annotations

import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from portrait_core.errors import InputError
from portrait_core.media import probe, read_frames
from portrait_core.media.binary import ffmpeg_binary
from portrait_core.media.colors import KNEE, PEAK_NITS, WHITE_NITS
from portrait_core.settings.limits import Limits, current_limits, use_limits
from tests.conftest import FfmpegRunner

Floats = NDArray[np.float64]

SHOWN = np.array(
    [(0, 0, 0), (128, 128, 128), (255, 255, 255), (200, 150, 120), (90, 60, 45), (60, 140, 80), (70, 80, 170)]
)
"""RGB patches."""
LUMA = {  # weights of red and blue
    "bt709": (0.2126, 0.0722),
    "smpte170m": (0.299, 0.114),
    "bt470bg": (0.299, 0.114),
    "smpte240m": (0.212, 0.087),
    "bt2020nc": (0.2627, 0.0593),
}
D65 = (0.3127, 0.3290)
CHROMATICITIES = {
    "bt709": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    "smpte170m": ((0.63, 0.34), (0.31, 0.595), (0.155, 0.07)),
    "bt470bg": ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    "bt2020": ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046)),
    "smpte432": ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
}


def _stored(rgb: Floats, matrix: str, full: bool, bits: int) -> NDArray[np.uint16]:
    """Codes ``[3,n]`` of Y, Cb and Cr for non-linear RGB ``[n,3]`` of 0 to 1."""
    red, blue = LUMA[matrix]
    luma = rgb @ np.array([red, 1 - red - blue, blue])
    chroma = np.stack([(rgb[:, 2] - luma) / (2 - 2 * blue), (rgb[:, 0] - luma) / (2 - 2 * red)])
    unit = 2 ** (bits - 8)
    if full:
        codes = np.vstack([luma * (256 * unit - 1), chroma * (256 * unit - 1) + 128 * unit])
    else:
        codes = np.vstack([(219 * luma + 16) * unit, (224 * chroma + 128) * unit])
    return np.round(codes).astype(np.uint16)


def _video(
    path: Path, rgb: Floats, matrix: str = "bt709", full: bool = False, bits: int = 8, tags: str = ""
) -> Path:
    """A lossless video of one frame: patches of 16x16 pixels side by side, tagged by ``setparams``."""
    codes = np.repeat(np.repeat(_stored(rgb, matrix, full, bits)[:, None], 16, 1), 16, 2)
    raw = codes.astype("<u2" if bits > 8 else np.uint8).tobytes()
    pixels = {8: "yuv444p", 10: "yuv444p10le", 12: "yuv444p12le"}[bits]
    source = ["-f", "rawvideo", "-pix_fmt", pixels, "-s", f"{codes.shape[2]}x16", "-r", "25", "-i", "pipe:0"]
    command = [ffmpeg_binary(), "-loglevel", "error", "-y", *source]
    if tags:
        command += ["-vf", f"setparams={tags}"]
    subprocess.run([*command, "-c:v", "ffv1", str(path)], input=raw, check=True)
    return path


def _read(path: Path) -> NDArray[np.int64]:
    """RGB ``[n,3]`` in the middle of each patch of 16 pixels."""
    return next(read_frames(path))[8, 8::16].astype(np.int64)


def _to_xyz(primaries: str) -> Floats:
    points = np.array([(x / y, 1, (1 - x - y) / y) for x, y in CHROMATICITIES[primaries]]).T
    white = np.array([D65[0] / D65[1], 1, (1 - D65[0] - D65[1]) / D65[1]])
    return points * np.linalg.solve(points, white)


def _into(linear: Floats, source: str, target: str) -> Floats:
    return linear @ np.linalg.solve(_to_xyz(target), _to_xyz(source)).T


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ["bt709", "smpte170m", "smpte240m", "bt2020nc"])
def test_matrix_and_range_are_those_of_the_tags(tmp_path: Path, matrix: str, full: bool, bits: int) -> None:
    tags = f"colorspace={matrix}:range={'pc' if full else 'tv'}"
    path = _video(tmp_path / "a.mkv", SHOWN / 255, matrix, full, bits, tags)
    assert np.abs(_read(path) - SHOWN).max() <= (2 if bits == 8 else 1)


@pytest.mark.parametrize(
    ("size", "matrix"),
    [((640, 480), "smpte170m"), ((720, 576), "smpte170m"), ((1280, 544), "bt709"), ((608, 1080), "bt709")],
)
def test_untagged_video_has_the_matrix_of_its_size(
    ffmpeg_to: FfmpegRunner, tmp_path: Path, size: tuple[int, int], matrix: str
) -> None:
    y, cb, cr = _stored(np.array([[0.8, 0.3, 0.2]]), matrix, False, 8)[:, 0]
    plain = f"color=black:s={size[0]}x{size[1]}:r=1:d=1,format=yuv444p,geq=lum={y}:cb={cb}:cr={cr}"
    video = ffmpeg_to(f"plain{size[0]}.mkv", "-f", "lavfi", "-i", plain, "-c:v", "ffv1")
    assert np.abs(next(read_frames(video))[5, 5].astype(int) - np.array([204, 76, 51])).max() <= 2


@pytest.mark.parametrize("primaries", ["smpte170m", "bt470bg", "bt2020", "smpte432"])
@pytest.mark.parametrize("bits", [8, 10])
def test_primaries_become_those_of_bt709(tmp_path: Path, primaries: str, bits: int) -> None:
    stored = _into((SHOWN / 255) ** 2.4, "bt709", primaries)
    assert stored.min() > -1e-9
    matrix = "bt2020nc" if primaries == "bt2020" else "bt709"
    tags = f"colorspace={matrix}:color_primaries={primaries}:color_trc=bt709:range=tv"
    path = _video(tmp_path / "a.mkv", np.clip(stored, 0, 1) ** (1 / 2.4), matrix, False, bits, tags)
    found = _read(path)
    # A step of 8 bits in dark colours is several steps after the change of primaries.
    assert np.abs(found - SHOWN).max() <= (4 if bits == 8 else 2)
    assert probe(path).dynamic_range == ""


def _converted(ffmpeg_to: FfmpegRunner, name: str, matrix: str, more: str) -> Path:
    """A lossless video of :data:`SHOWN`, which zscale converted to a matrix and tagged."""
    patches = "".join(
        f",drawbox=x={16 * i}:w=16:h=16:t=fill:color=0x{r:02x}{g:02x}{b:02x}"
        for i, (r, g, b) in enumerate(SHOWN.tolist())
    )
    source = f"color=black:s={16 * len(SHOWN)}x16:r=5:d=0.2,format=gbrp{patches}"
    stored = "matrixin=gbr:rangein=full:primariesin=bt709:transferin=bt709:range=limited"
    convert = f"zscale={stored}:matrix={matrix}:{more},format=yuv444p12"
    return ffmpeg_to(name, "-f", "lavfi", "-i", source, "-vf", convert, "-c:v", "ffv1")


@pytest.mark.parametrize(
    ("matrix", "more"),
    [
        ("ycgco", "primaries=bt709:transfer=bt709"),
        ("2020_cl", "primaries=bt2020:transfer=2020_12"),
        ("bt709", "primaries=bt709:transfer=linear"),
    ],
)
def test_colours_that_the_scaler_does_not_know_are_converted(
    ffmpeg_to: FfmpegRunner, matrix: str, more: str
) -> None:
    found = _read(_converted(ffmpeg_to, f"odd-{matrix}.mkv", matrix, more))
    assert np.abs(found - SHOWN).max() <= 3


@pytest.mark.parametrize("primaries", ["smpte431", "film", "bt470m"])
def test_white_of_another_screen_stays_white_and_every_reading_is_the_same(
    tmp_path: Path, primaries: str
) -> None:
    tags = f"colorspace=bt709:color_primaries={primaries}:color_trc=bt709:range=tv"
    path = _video(tmp_path / "a.mkv", SHOWN / 255, "bt709", False, 10, tags)
    readings = [_read(path) for _ in range(4)]
    assert all((reading == readings[0]).all() for reading in readings)
    assert np.abs(readings[0][:3] - SHOWN[:3]).max() <= 1


def _with_dolby_vision(video: Path, target: Path, profile: int, compatible: int) -> Path:
    """Write a copy of an MP4 whose index is at its end, with a record of Dolby Vision in its track."""
    data = bytearray(video.read_bytes())
    record = struct.pack(">I4s24s", 32, b"dvcC", bytes([1, 0, profile << 1, 0x2D, compatible << 4]))
    entry = data.index(b"hvc1")
    size = int.from_bytes(data[entry - 4 : entry], "big")
    data[entry - 4 + size : entry - 4 + size] = record
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hvc1"):
        at = data.index(name, data.index(b"moov")) - 4
        data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + len(record)).to_bytes(4, "big")
    target.write_bytes(data)
    return target


def test_colours_that_only_dolby_vision_shows_are_refused(ffmpeg_to: FfmpegRunner, tmp_path: Path) -> None:
    tags = ("-x265-params", "log-level=error", "-tag:v", "hvc1")
    plain = ffmpeg_to(
        "plain-hvc1.mp4", "-f", "lavfi", "-i", "testsrc2=s=64x64:r=5:d=0.4", "-c:v", "libx265", *tags
    )
    shown = _with_dolby_vision(plain, tmp_path / "eight.mp4", 8, 4)
    assert len(list(read_frames(shown))) == 2
    own = _with_dolby_vision(plain, tmp_path / "five.mp4", 5, 0)
    with pytest.raises(InputError, match=r"five.mp4 is a video of Dolby Vision, profile 5.*export it"):
        probe(own)


def _shown_of(nits: Floats) -> Floats:
    """8-bit BT.709 of light of BT.2020 in cd/m², by the formulas of the tone curve."""
    light = np.maximum(_into(nits / WHITE_NITS, "bt2020", "bt709"), 0)
    peak = PEAK_NITS / WHITE_NITS
    brightest = light.max(-1, keepdims=True)
    a = -(KNEE**2) * (peak - 1) / (KNEE**2 - 2 * KNEE + peak)
    b = (KNEE**2 - 2 * KNEE * peak + peak) / (peak - 1)
    bent = (b * b + 2 * b * KNEE + KNEE**2) / (b - a) * (brightest + a) / (brightest + b)
    mapped = np.where(brightest <= KNEE, brightest, bent)
    return 255 * np.clip(light * mapped / np.maximum(brightest, 1e-9), 0, 1) ** (1 / 2.4)


def _nits_of_pq(code: Floats) -> Floats:
    power = np.maximum(code, 0) ** (32 / 2523)
    return 10000 * (np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)) ** (8192 / 1305)


def _nits_of_hlg(code: Floats) -> Floats:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    luma = scene @ np.array([0.2627, 0.6780, 0.0593])
    return 1000 * luma[:, None] ** 0.2 * scene


HDR = np.array([(0, 0, 0), (0.3, 0.3, 0.3), (0.58, 0.58, 0.58), (0.75, 0.75, 0.75), (0.5, 0.4, 0.35),
                (0.6, 0.5, 0.48), (0.35, 0.5, 0.4), (0.8, 0.78, 0.7)])  # fmt: skip


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize(("transfer", "name"), [("arib-std-b67", "HLG"), ("smpte2084", "PQ")])
def test_high_dynamic_range_is_tone_mapped(tmp_path: Path, transfer: str, name: str, bits: int) -> None:
    tags = f"colorspace=bt2020nc:color_primaries=bt2020:color_trc={transfer}:range=tv"
    path = _video(tmp_path / "a.mkv", HDR, "bt2020nc", False, bits, tags)
    expected = _shown_of(_nits_of_hlg(HDR) if name == "HLG" else _nits_of_pq(HDR))
    assert probe(path).dynamic_range == name
    assert np.abs(_read(path) - expected).max() <= 3


@pytest.mark.parametrize("transfer", ["arib-std-b67", "smpte2084"])
def test_a_phones_video_in_high_dynamic_range_looks_as_its_standard_one(
    carphone: Path, tmp_path: Path, transfer: str
) -> None:
    plain = next(read_frames(carphone))[:, :176] / 255
    light = _into(plain**2.4, "bt709", "bt2020") * WHITE_NITS
    codes = np.linspace(0, 1, 4096)
    if transfer == "smpte2084":
        stored = np.interp(light, _nits_of_pq(codes), codes)
    else:
        luma = light @ np.array([0.2627, 0.6780, 0.0593]) / 1000
        scene = light / 1000 / np.maximum(luma[..., None], 1e-9) ** (0.2 / 1.2)
        grey = _nits_of_hlg(np.repeat(codes[:, None], 3, 1))[:, 0] / 1000
        stored = np.interp(scene, grey ** (1 / 1.2), codes)
    raw = np.round(stored * 65535).astype("<u2").tobytes()
    tags = f"setparams=color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc:range=tv"
    convert = f"scale=out_color_matrix=bt2020:out_range=tv,format=yuv420p10le,{tags}"
    source = ["-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", "176x144", "-r", "25", "-i", "pipe:0"]
    path = tmp_path / "hdr.mov"
    encode = ["-vf", convert, "-c:v", "libx265", "-x265-params", "log-level=error:crf=12"]
    command = [ffmpeg_binary(), "-loglevel", "error", *source, *encode, str(path)]
    subprocess.run(command, input=raw, check=True)
    found = next(read_frames(path)).astype(float)
    # Most of the picture is below the knee; a bright sky is compressed.
    darker = plain.max(-1) < 0.7
    assert np.abs(found[darker].mean(0) - 255 * plain[darker].mean(0)).max() < 2


def test_alpha_of_a_video_in_high_dynamic_range_is_over_white(ffmpeg_to: FfmpegRunner) -> None:
    tags = "color_primaries=bt2020:color_trc=arib-std-b67:colorspace=bt2020nc:range=tv"
    half = "color=black:s=32x32:r=5:d=0.2,format=yuva444p10le,geq=lum=64:cb=512:cr=512:a='1023*gte(X,16)'"
    video = ffmpeg_to("a.mov", "-f", "lavfi", "-i", f"{half},setparams={tags}", "-c:v", "prores_ks")
    frame = next(read_frames(video))
    assert probe(video).has_alpha
    assert frame[16, 4].tolist() == [255, 255, 255]
    assert frame[16, 28].max() <= 2


# Pixel aspect


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", ("-c:v", "libx264")),
        ("a.mkv", ("-c:v", "libx264")),
        ("a.webm", ("-c:v", "libvpx-vp9")),
        ("a.ts", ("-c:v", "mpeg2video", "-q:v", "2")),
        ("a.avi", ("-c:v", "mpeg4", "-q:v", "2")),
        ("a.h264", ("-c:v", "libx264")),
    ],
)
def test_pixels_are_made_square(ffmpeg_to: FfmpegRunner, name: str, codec: tuple[str, ...]) -> None:
    # A bright disc, which is as wide as it is high when it is displayed.
    disc = "color=black:s=320x240:r=25:d=0.4,format=gray,geq=lum='235*lt(hypot(X-160,Y-120),80)'"
    squeeze = f"{disc},scale=160:240,setsar=2/1,format=yuv420p"
    video = ffmpeg_to(name, "-f", "lavfi", "-i", squeeze, *codec)
    info = probe(video)
    assert (info.width, info.height, info.pixel_aspect) == (320, 240, Fraction(2))
    bright = next(read_frames(video))[..., 1] > 128
    assert bright.shape == (240, 320)
    assert np.abs(np.array([bright.any(0).sum(), bright.any(1).sum()]) - 160).max() <= 4


def test_pixel_aspect_and_rotation_go_together(ffmpeg_to: FfmpegRunner) -> None:
    left = "color=black:s=60x96:r=25:d=0.4,format=gray,geq=lum='235*lt(X,30)',setsar=4/3,format=yuv420p"
    flat = ffmpeg_to("flat.mp4", "-f", "lavfi", "-i", left, "-c:v", "libx264")
    turned = ffmpeg_to("turned.mp4", "-display_rotation", "90", "-i", flat, "-c", "copy")
    info = probe(turned)
    assert (info.width, info.height, info.rotation_deg) == (96, 80, 90)
    bright = next(read_frames(turned))[..., 1] > 128
    assert (bright[40:].mean(), bright[:40].mean()) == (1, 0)  # turned to the left: its left is at the bottom


def test_low_pixels_are_stretched_in_height(ffmpeg_to: FfmpegRunner) -> None:
    low = ffmpeg_to("low.mkv", "-f", "lavfi", "-i", "testsrc2=s=160x60:r=25:d=0.2,setsar=1/2", "-c:v", "ffv1")
    assert (probe(low).width, probe(low).height) == (160, 120)


@pytest.mark.parametrize("aspect", ["1/100", "100/1", "1001/1000"])
def test_an_absurd_or_a_rounded_pixel_aspect_is_not_applied(ffmpeg_to: FfmpegRunner, aspect: str) -> None:
    name = aspect.replace("/", "_")
    video = ffmpeg_to(
        f"{name}.mkv", "-f", "lavfi", "-i", f"testsrc2=s=160x60:r=25:d=0.2,setsar={aspect}", "-c:v", "ffv1"
    )
    assert (probe(video).width, probe(video).height, probe(video).pixel_aspect) == (160, 60, Fraction(1))


def test_a_frame_that_pixel_aspect_makes_too_large_is_refused(ffmpeg_to: FfmpegRunner) -> None:
    wide = ffmpeg_to(
        "wide.mkv", "-f", "lavfi", "-i", "testsrc2=s=160x60:r=25:d=0.2,setsar=3/1", "-c:v", "ffv1"
    )
    before = current_limits()
    use_limits(Limits(video_pixels=20_000))
    try:
        with pytest.raises(InputError, match=r"28,800 pixels"):
            probe(wide)
    finally:
        use_limits(before)
