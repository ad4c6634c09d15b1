"""Mutations of good inputs, as a strategy of hypothesis: a few at a time, of the kinds that break readers."""

from __future__ import annotations

import re
from collections.abc import Callable

from hypothesis import strategies as st

from tests.fuzz.harness import Target, good_inputs

_LARGEST = 1 << 20
_NUMBERS = (
    *(0, 1, 2, 3, 7, 8, 16, 0x7F, 0x80, 0xFE, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000),
    *(
        0x7FFFFFFF,
        0x80000000,
        0xFFFFFFFE,
        0xFFFFFFFF,
        1 << 32,
        1 << 40,
        (1 << 63) - 1,
        1 << 63,
        (1 << 64) - 1,
    ),
)
_DECIMALS = (*_NUMBERS, -1, -2, 10**12, 10**30)
_WRITTEN = re.compile(rb"-?\d{1,20}")

Draw = Callable[[st.SearchStrategy[int]], int]
Mutation = Callable[[Draw, bytearray, Target], None]


def _place(draw: Draw, data: bytearray) -> int:
    """Draw a place, half of the time in the first 512 bytes, where most structure is."""
    last = max(len(data) - 1, 0)
    return draw(st.integers(0, min(last, 511)) if draw(st.integers(0, 1)) else st.integers(0, last))


def _byte(draw: Draw, data: bytearray, target: Target) -> None:
    if data:
        data[_place(draw, data)] = draw(st.integers(0, 255))


def _number(draw: Draw, data: bytearray, target: Target) -> None:
    """Put an interesting number of 1 to 8 bytes somewhere."""
    width, order = 1 << draw(st.integers(0, 3)), draw(st.integers(0, 1))
    value = _NUMBERS[draw(st.integers(0, len(_NUMBERS) - 1))] % (1 << 8 * width)
    place = _place(draw, data)
    data[place : place + width] = value.to_bytes(width, "big" if order else "little")


def _step(draw: Draw, data: bytearray, target: Target) -> None:
    """Change a number of 1 to 8 bytes by a little, or double it."""
    width, place = 1 << draw(st.integers(0, 3)), _place(draw, data)
    value = int.from_bytes(data[place : place + width], "little")
    changed = value * 2 if draw(st.integers(0, 3)) == 0 else value + draw(st.integers(-4, 4))
    data[place : place + width] = (changed % (1 << 8 * width)).to_bytes(width, "little")


def _decimal(draw: Draw, data: bytearray, target: Target) -> None:
    """Replace a number that is written out."""
    found = list(_WRITTEN.finditer(data))
    if found:
        match = found[draw(st.integers(0, len(found) - 1))]
        value = _DECIMALS[draw(st.integers(0, len(_DECIMALS) - 1))]
        data[match.start() : match.end()] = str(value).encode()


def _cut(draw: Draw, data: bytearray, target: Target) -> None:
    del data[_place(draw, data) :]


def _remove(draw: Draw, data: bytearray, target: Target) -> None:
    place = _place(draw, data)
    del data[place : place + draw(st.integers(1, 64))]


def _repeat(draw: Draw, data: bytearray, target: Target) -> None:
    """Write a piece several times, or very many."""
    place = _place(draw, data)
    piece = data[place : place + draw(st.integers(1, 64))]
    times = draw(st.integers(1, 8)) if draw(st.integers(0, 3)) else 2000
    data[place:place] = bytes(piece) * times


def _splice(draw: Draw, data: bytearray, target: Target) -> None:
    """Copy a piece of a good input to another place, over what is there or before it."""
    sources = good_inputs(target)
    source = sources[draw(st.integers(0, len(sources) - 1))]
    start, length = _place(draw, bytearray(source)), draw(st.integers(1, 256))
    place = _place(draw, data)
    end = place + length * draw(st.integers(0, 1))
    data[place:end] = source[start : start + length]


def _token(draw: Draw, data: bytearray, target: Target) -> None:
    if target.tokens:
        place = _place(draw, data)
        data[place:place] = target.tokens[draw(st.integers(0, len(target.tokens) - 1))]


MUTATIONS: tuple[Mutation, ...] = (
    _byte, _number, _step, _decimal, _cut, _remove, _repeat, _splice, _token,
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, target: Target) -> bytes:
    """Draw a good input of a target with one to five mutations."""
    seeds = good_inputs(target)
    data = bytearray(seeds[draw(st.integers(0, len(seeds) - 1))])
    for _ in range(draw(st.integers(1, 5))):
        MUTATIONS[draw(st.integers(0, len(MUTATIONS) - 1))](draw, data, target)
        del data[_LARGEST:]
    return bytes(data)
