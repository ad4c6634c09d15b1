"""Colours of a video as a standard screen shows them: BT.709, full-range RGB.

ffmpeg's scaler turns what is stored into RGB by the file's matrix and range. What is left are the transfer
function and the primaries, named by the numbers of ITU-T H.273: high dynamic range is tone mapped, and wide
or older primaries are converted to those of BT.709.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from portrait_core.errors import InputError

WHITE_NITS = 203
"""Luminance in cd/m² of a diffuse white in high dynamic range (ITU-R BT.2408), which becomes the white of
BT.709."""
PEAK_NITS = 1000
"""Luminance in cd/m² that is shown as the brightest white: that of HLG, and of most PQ."""
KNEE = 0.5
"""Part of white above which brighter light is compressed; what is darker, as skin mostly is, stays exact."""
_PQ, _HLG = 16, 18
_BT709, _UNSPECIFIED, _BT2020 = 1, 2, 9
# Those whose colours differ from BT.709's, with its white: from another white, zscale does not give the same
# result twice. Of a cinema's projector, the primaries are those of a screen of the same red, green and blue.
_OTHER_PRIMARIES = frozenset({5, 6, 7, _BT2020, 12, 22})
_NEAREST_PRIMARIES = {11: 12}
# Transfer functions that zscale knows; another is taken as that of BT.709, into which it is converted back.
_KNOWN_TRANSFERS = frozenset({1, 4, 5, 6, 7, 8, 9, 10, 13, 14, 15})
_UNSEEN_TRANSFERS = frozenset({8, 9, 10})  # linear and logarithmic: no screen shows them as they are
_REFUSED_BY_SCALER = frozenset({9, 10})
# Matrices that zscale knows and the scaler does not: YCgCo, BT.2020's of constant luminance, ICtCp.
_MATRICES_OF_ZSCALE = frozenset({8, 10, 12, 13, 14})
_UNKNOWN_MATRICES = {3: "reserved", 11: "YDzDx", 15: "IPT-C2", 16: "YCgCo-Re", 17: "YCgCo-Ro"}


@dataclass(frozen=True)
class Colors:
    """Meaning of a video's RGB values.

    Attributes:
        transfer: H.273's number of the transfer function.
        primaries: H.273's number of the primaries.
        matrix: H.273's number of the matrix; 0 is RGB.
    """

    transfer: int
    primaries: int
    matrix: int = 0

    @property
    def dynamic_range(self) -> str:
        """``HLG`` or ``PQ`` where the dynamic range is high, else empty."""
        return {_HLG: "HLG", _PQ: "PQ"}.get(self.transfer, "")

    @property
    def are_plain(self) -> bool:
        """True if they are shown as they are."""
        return (
            not self.dynamic_range
            and self.primaries not in _OTHER_PRIMARIES
            and self.transfer not in _UNSEEN_TRANSFERS
        )

    def to_rgb(self, video: Any, has_alpha: bool) -> Any:
        """Add ffmpeg's filters to a stream of stored pictures where the scaler cannot make RGB of them."""
        if self.transfer in _REFUSED_BY_SCALER:
            video = video.filter("setparams", color_trc="unknown")
        if self.matrix not in _MATRICES_OF_ZSCALE:
            return video
        # Two of them are computed of light, so that the transfer function matters.
        light = {"transferin": self.transfer, "primariesin": self.primaries}
        known = {name: number for name, number in light.items() if number != _UNSPECIFIED}
        same = {name.removesuffix("in"): number for name, number in known.items()}
        rgb = {"matrixin": self.matrix, "matrix": "gbr", "range": "full"}
        video = video.filter("zscale", **(rgb | known | same))
        return video.filter("format", "gbrap16le" if has_alpha else "gbrp16le")

    def convert(self, video: Any, has_alpha: bool) -> Any:
        """Add ffmpeg's filters to a stream of RGB pictures, which convert these colours to BT.709."""
        if self.are_plain:
            return video
        video = video.filter("format", "gbrap16le" if has_alpha else "gbrp16le")
        stored = {"matrixin": "gbr", "rangein": "full", "transferin": self.transfer}
        shown = {"matrix": "gbr", "range": "full", "primaries": _BT709}
        if not self.dynamic_range:
            transfer = self.transfer if self.transfer in _KNOWN_TRANSFERS else _BT709
            shown_as = _BT709 if transfer in _UNSEEN_TRANSFERS else transfer
            primaries = self.primaries if self.primaries in _OTHER_PRIMARIES else _BT709
            same = {"transferin": transfer, "transfer": shown_as, "primariesin": primaries}
            return video.filter("zscale", **(stored | shown | same))
        primaries = self.primaries if self.primaries in (_BT709, *_OTHER_PRIMARIES) else _BT2020
        # HLG's light depends on the luminance of the pixel; the approximation bends each channel by itself.
        exact = {"agamma": 0} if self.transfer == _HLG else {}
        linear = {"primariesin": primaries, "transfer": "linear", "npl": WHITE_NITS, **exact}
        video = video.filter("zscale", **(stored | shown | linear))
        video = video.filter("format", "gbrapf32le" if has_alpha else "gbrpf32le")
        peak = f"{PEAK_NITS / WHITE_NITS:.6f}"
        video = video.filter("tonemap", tonemap="mobius", param=KNEE, peak=peak, desat=0)
        back = {"matrixin": "gbr", "rangein": "full", "transferin": "linear", "primariesin": _BT709}
        return video.filter("zscale", **(back | shown | {"transfer": _BT709}))


def assumed_matrix(width: int, height: int, colors: Colors) -> str:
    """Return the scaler's name of the matrix that players assume where a file names none.

    It is that of BT.2020 for its primaries and for high dynamic range, else BT.601's for standard definition
    and BT.709's above.

    Args:
        width: stored width, pixels.
        height: stored height, pixels.
        colors: the file's colours.
    """
    if colors.dynamic_range or colors.primaries == _BT2020:
        return "bt2020"
    short, long = sorted((width, height))
    return "bt709" if long >= 1280 or short > 576 else "bt601"


def colors_of(context: Any, picture: Any) -> Colors:
    """Return the colours that a decoded picture names, else those that its stream names.

    Args:
        context: PyAV's context of the codec.
        picture: PyAV's first picture.
    """
    transfer, primaries, matrix = (
        int(of_picture if int(of_picture) != _UNSPECIFIED else of_stream)
        for of_picture, of_stream in (
            (picture.color_trc, context.color_trc),
            (picture.color_primaries, context.color_primaries),
            (picture.colorspace, context.colorspace),
        )
    )
    return Colors(transfer, _NEAREST_PRIMARIES.get(primaries, primaries), matrix)


def check_colors(colors: Colors, name: str) -> None:
    """Check that colours can be converted.

    Args:
        colors: colours of a video.
        name: name of the file, for the message.

    Raises:
        InputError: their matrix is not known.
    """
    if colors.matrix in _UNKNOWN_MATRICES:
        raise InputError(
            f"{name} has colours ({_UNKNOWN_MATRICES[colors.matrix]}) that cannot be converted here; export "
            "it again in standard dynamic range, HDR10 or HLG"
        )
