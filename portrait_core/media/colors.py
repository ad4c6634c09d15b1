"""Colours of a video as a standard screen shows them: BT.709, full-range RGB.

ffmpeg's scaler turns what is stored into RGB by the file's matrix and range. What is left are the transfer
function and the primaries, named by the numbers of ITU-T H.273: high dynamic range is tone mapped, and wide
or older primaries are converted to those of BT.709.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

WHITE_NITS = 203
"""Luminance in cd/m² of a diffuse white in high dynamic range (ITU-R BT.2408), which becomes the white of
BT.709."""
PEAK_NITS = 1000
"""Luminance in cd/m² that is shown as the brightest white: that of HLG, and of most PQ."""
KNEE = 0.5
"""Part of white above which brighter light is compressed; what is darker, as skin mostly is, stays exact."""
_PQ, _HLG = 16, 18
_BT709, _UNSPECIFIED, _BT2020 = 1, 2, 9
# Those whose colours differ from BT.709's and that zscale knows.
_OTHER_PRIMARIES = frozenset({4, 5, 6, 7, 8, _BT2020, 11, 12, 22})
# Transfer functions that zscale knows; another is taken as that of BT.709, into which it is converted back.
_KNOWN_TRANSFERS = frozenset({1, 4, 5, 6, 7, 8, 13, 14, 15})


@dataclass(frozen=True)
class Colors:
    """Meaning of a video's RGB values.

    Attributes:
        transfer: H.273's number of the transfer function.
        primaries: H.273's number of the primaries.
    """

    transfer: int
    primaries: int

    @property
    def dynamic_range(self) -> str:
        """``HLG`` or ``PQ`` where the dynamic range is high, else empty."""
        return {_HLG: "HLG", _PQ: "PQ"}.get(self.transfer, "")

    @property
    def are_plain(self) -> bool:
        """True if they are shown as they are."""
        return not self.dynamic_range and self.primaries not in _OTHER_PRIMARIES

    def convert(self, video: Any, has_alpha: bool) -> Any:
        """Add ffmpeg's filters to a stream of RGB pictures, which convert these colours to BT.709."""
        if self.are_plain:
            return video
        video = video.filter("format", "gbrap16le" if has_alpha else "gbrp16le")
        stored = {"matrixin": "gbr", "rangein": "full", "transferin": self.transfer}
        shown = {"matrix": "gbr", "range": "full", "primaries": _BT709}
        if not self.dynamic_range:
            transfer = self.transfer if self.transfer in _KNOWN_TRANSFERS else _BT709
            same = {"transferin": transfer, "transfer": transfer, "primariesin": self.primaries}
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
    return Colors(
        *(
            int(of_picture if int(of_picture) != _UNSPECIFIED else of_stream)
            for of_picture, of_stream in (
                (picture.color_trc, context.color_trc),
                (picture.color_primaries, context.color_primaries),
            )
        )
    )
