"""Mutations of good inputs, as a strategy of hypothesis: a few at a time, of the kinds that break readers."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

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

Mutation = Callable[[Random, bytearray, Target], None]


def _place(rng: Random, data: bytearray) -> int:
    """Draw a place, half of the time in the first 512 bytes, where most structure is."""
    last = max(len(data) - 1, 0)
    return rng.randint(0, min(last, 511) if rng.randrange(2) else last)


def _byte(rng: Random, data: bytearray, target: Target) -> None:
    if data:
        data[_place(rng, data)] = rng.randint(0, 255)


def _number(rng: Random, data: bytearray, target: Target) -> None:
    """Put an interesting number of 1 to 8 bytes somewhere."""
    width, order = 1 << rng.randint(0, 3), rng.randrange(2)
    value = _NUMBERS[rng.randrange(len(_NUMBERS))] % (1 << 8 * width)
    place = _place(rng, data)
    data[place : place + width] = value.to_bytes(width, "big" if order else "little")


def _step(rng: Random, data: bytearray, target: Target) -> None:
    """Change a number of 1 to 8 bytes by a little, or double it."""
    width, place = 1 << rng.randint(0, 3), _place(rng, data)
    value = int.from_bytes(data[place : place + width], "little")
    changed = value * 2 if rng.randint(0, 3) == 0 else value + rng.randint(-4, 4)
    data[place : place + width] = (changed % (1 << 8 * width)).to_bytes(width, "little")


def _decimal(rng: Random, data: bytearray, target: Target) -> None:
    """Replace a number that is written out."""
    found = list(_WRITTEN.finditer(data))
    if found:
        match = found[rng.randrange(len(found))]
        value = _DECIMALS[rng.randrange(len(_DECIMALS))]
        data[match.start() : match.end()] = str(value).encode()


def _cut(rng: Random, data: bytearray, target: Target) -> None:
    del data[_place(rng, data) :]


def _remove(rng: Random, data: bytearray, target: Target) -> None:
    place = _place(rng, data)
    del data[place : place + rng.randint(1, 64)]


def _repeat(rng: Random, data: bytearray, target: Target) -> None:
    """Write a piece several times, or very many."""
    place = _place(rng, data)
    piece = data[place : place + rng.randint(1, 64)]
    times = rng.randint(1, 8) if rng.randint(0, 3) else 2000
    data[place:place] = bytes(piece) * times


def _splice(rng: Random, data: bytearray, target: Target) -> None:
    """Copy a piece of a good input to another place, over what is there or before it."""
    sources = good_inputs(target)
    source = sources[rng.randrange(len(sources))]
    start, length = _place(rng, bytearray(source)), rng.randint(1, 256)
    place = _place(rng, data)
    end = place + length * rng.randrange(2)
    data[place:end] = source[start : start + length]


def _token(rng: Random, data: bytearray, target: Target) -> None:
    if target.tokens:
        place = _place(rng, data)
        data[place:place] = target.tokens[rng.randrange(len(target.tokens))]


MUTATIONS: tuple[Mutation, ...] = (
    _byte, _number, _step, _decimal, _cut, _remove, _repeat, _splice, _token,
)  # fmt: skip


def mutated(target: Target) -> st.SearchStrategy[bytes]:
    """Return the strategy of a target's good inputs with one to five mutations.

    hypothesis draws the generator of random numbers, and the generator all places and values: drawn one by
    one by hypothesis, they are small numbers for the most part, and half of the inputs repeat others.
    """
    return st.randoms(use_true_random=True).map(lambda rng: _mutate(rng, target))


def _mutate(rng: Random, target: Target) -> bytes:
    data = bytearray(rng.choice(good_inputs(target)))
    for _ in range(rng.randint(1, 5)):
        rng.choice(MUTATIONS)(rng, data, target)
        del data[_LARGEST:]
    return bytes(data)
