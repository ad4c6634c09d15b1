"""A pickle reader that executes data instructions only.

Python's own reader calls whatever a pickle names, writes to any object's attributes and has shortcuts around
the look-up of names. This one works by three short lists: the instructions it knows, the names it resolves,
and the kinds of objects it fills. It extends the pure-Python reader of the standard library, because in the
compiled one only the names can be restricted, and it allocates whatever a file asks for.
"""

from __future__ import annotations

import os
import pickle
import pickletools
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

from torch import Tensor

from portrait_core.weights.readers.brief import brief

Names = Mapping[tuple[str, str], Any]
"""Objects by (module, name): an inert constructor, or a plain value."""

_KNOWN = """
    PROTO FRAME STOP MARK POP POP_MARK DUP
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3
    EMPTY_DICT DICT SETITEM SETITEMS EMPTY_SET ADDITEMS FROZENSET
    GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE
    GLOBAL STACK_GLOBAL REDUCE NEWOBJ NEWOBJ_EX BUILD
""".split()  # noqa: SIM905 - as a list it would take a page
_PLAIN_KEYS = (str, bytes, int, float, type(None))
_LARGEST_KEY = 1 << 60  # beyond it, numbers can be chosen that all have one hash
_MOST_READS = 1_000_000
"""Most pieces of one pickle: an instruction is one to three. EG3D's network file has 67,000."""
_FREE, _PER_BYTE, _ENTRY = 1 << 26, 4, 100
"""Bytes that constructors may always make, and per byte of the file beyond; bytes of a container's entry."""
_SMALL = 1 << 12


class ClassName:
    """A class that the file names and that is not needed: its full name, as data."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __repr__(self) -> str:
        return f"{self.module}.{self.name}"


class BoundedFile:
    """A file that refuses to read beyond its end, so that no length in it causes a large allocation.

    It also refuses to be read in millions of pieces, since a byte can stand for an object of 200.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        here = file.tell()
        self._end = file.seek(0, os.SEEK_END)
        file.seek(here)
        self.size = self._end - here
        """Bytes from the place where reading began to the end."""
        self._reads = 0

    def read(self, size: int) -> bytes:
        """Read exactly ``size`` bytes."""
        self._count()
        if size > _SMALL:
            self.check_left(size)
        data = self._file.read(size)
        if len(data) < size:
            _refuse_short(size, len(data))
        return data

    def readline(self) -> bytes:
        """Read one line."""
        self._count()
        return self._file.readline()

    def check_left(self, size: int) -> None:
        """Refuse a size that is larger than what is left."""
        left = self._end - self._file.tell()
        if size > left:
            _refuse_short(size, left)

    def _count(self) -> None:
        self._reads += 1
        if self._reads > _MOST_READS:
            raise pickle.UnpicklingError("it has millions of instructions, which files of weights do not")


def _refuse_short(size: int, left: int) -> None:
    raise pickle.UnpicklingError(f"it is cut short or damaged: {size} bytes should follow, {left} are left")


class DataUnpickler(pickle._Unpickler):
    """Reads a pickle whose names are all in ``names`` or accepted by :meth:`stand_in`."""

    fillable: tuple[type, ...] = ()
    """Types whose objects take state through a ``__setstate__`` of ours; plain dictionaries ignore it."""
    counts_views = True
    """Whether a tensor counts with all that it repeats of its storage, as what copies it needs."""

    # attributes of the base class: objects made so far, and access to those since the last mark
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(
        self, file: BinaryIO, names: Names, *, encoding: str = "ASCII", size: int | None = None
    ) -> None:
        """Prepare to read.

        Args:
            file: the open file, at the pickle's beginning.
            names: objects that the pickle may name.
            encoding: encoding of the strings of Python 2.
            size: bytes of the values that belong to the pickle; default: those of the file from here.
        """
        self._input = BoundedFile(file)
        super().__init__(self._input, encoding=encoding)
        self._names = names
        self._constructors = {id(value) for value in names.values() if callable(value)}
        self._allowance = _FREE + _PER_BYTE * (self._input.size if size is None else size)

    def stand_in(self, module: str, name: str) -> Any:
        """Return the object for a name that is not in ``names``.

        Raises:
            pickle.UnpicklingError: the name is not accepted; the message contains it.
        """
        asked = f"{module:.100}.{name:.100}"
        raise pickle.UnpicklingError(f"the file asks for {asked}, which is not a name known as safe")

    def construct(self, of: ClassName, args: tuple[Any, ...]) -> Any:
        """Return an object in place of one of the class ``of``."""
        raise pickle.UnpicklingError(f"the file makes a {of}, which is not known as safe")

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """Resolve a name of the pickle."""
        if (module_name, global_name) in self._names:
            return self._names[module_name, global_name]
        return self.stand_in(module_name, global_name)

    def _charge(self, values: Iterable[Any]) -> None:
        """Count what copies of values take, before they are made.

        One value can be given to a constructor a million times, by six bytes each time.
        """
        self._allowance -= sum(map(_cost, values))
        if self._allowance < 0:
            raise pickle.UnpicklingError("it makes far more values than it has bytes for")

    def _call(self, function: Any, args: Any) -> Any:
        if not isinstance(args, tuple):
            raise pickle.UnpicklingError(f"it calls {brief(function)} without a tuple of arguments")
        if isinstance(function, ClassName):
            return self.construct(function, args)
        if id(function) not in self._constructors:
            raise pickle.UnpicklingError(f"it calls a {type(function).__name__}, which is no constructor")
        self._charge(args)
        made = function(*args)
        if self.counts_views and isinstance(made, Tensor):
            self._charge((made,))
        return made

    def _pop_call(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def _pop_keyword_call(self) -> None:
        if self.stack.pop():
            raise pickle.UnpicklingError("it constructs an object with keyword arguments")
        self._pop_call()

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        fill = getattr(target, "__setstate__", None) if isinstance(target, self.fillable) else None
        if fill is not None:
            self._charge(state if isinstance(state, tuple) else (state,))
            fill(state)
        elif not isinstance(target, dict):  # attributes of a dictionary carry nothing that is read
            raise pickle.UnpicklingError(f"it sets attributes of a {type(target).__name__}")

    def _frame(self) -> None:
        """Take note of a frame, which only says how much to read at once."""
        (size,) = struct.unpack("<Q", self._input.read(8))
        self._input.check_left(size)

    def _filled(self, kind: type, count: int) -> Any:
        target = self.stack[count]
        if not isinstance(target, kind):
            raise pickle.UnpicklingError(
                f"it fills a {type(target).__name__} as if it were a {kind.__name__}"
            )
        return target

    def _append(self) -> None:
        value = self.stack.pop()
        self._filled(list, -1).append(value)

    def _appends(self) -> None:
        values = self.pop_mark()
        self._filled(list, -1).extend(values)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._filled(dict, -1)[plain_key(key)] = value

    def _set_items(self) -> None:
        items = self.pop_mark()
        target = self._filled(dict, -1)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[plain_key(key)] = value

    def _add_items(self) -> None:
        items = self.pop_mark()
        self._filled(set, -1).update(plain_key(item) for item in items)

    def _frozen_set(self) -> None:
        self.append(frozenset(plain_key(item) for item in self.pop_mark()))

    def _dict(self) -> None:
        items = self.pop_mark()
        pairs = zip(items[::2], items[1::2], strict=True)
        self.append({plain_key(key): value for key, value in pairs})


def plain_key(key: Any) -> Any:
    """Return a key of a dictionary or member of a set, if it is plain.

    Hashing a deeply nested tuple would overflow the interpreter's stack, and large numbers can be chosen so
    that each is compared with all others.
    """
    large = isinstance(key, int) and abs(key) > _LARGEST_KEY
    if not isinstance(key, _PLAIN_KEYS) or large:
        what = "large number" if large else type(key).__name__
        raise pickle.UnpicklingError(f"a {what} is the key of a dictionary or member of a set")
    return key


def _cost(value: Any) -> int:
    """Return about how many bytes a copy of a value takes, without what its members hold."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return _ENTRY * len(value) if isinstance(value, list | tuple | dict | set | frozenset) else 8


Handlers = dict[int, Callable[[Any], None]]


def _refusal(name: str) -> Callable[[Any], None]:
    def refuse(_: Any) -> None:
        raise pickle.UnpicklingError(f"it uses the pickle instruction {name}, which network files do not")

    return refuse


def _table() -> Handlers:
    """Return a handler for each of the 256 instructions: ours, the standard one, or a refusal."""
    names = {ord(op.code): op.name for op in pickletools.opcodes}
    ours = {
        "REDUCE": DataUnpickler._pop_call,
        "NEWOBJ": DataUnpickler._pop_call,
        "NEWOBJ_EX": DataUnpickler._pop_keyword_call,
        "BUILD": DataUnpickler._build,
        "APPEND": DataUnpickler._append,
        "APPENDS": DataUnpickler._appends,
        "SETITEM": DataUnpickler._set_item,
        "SETITEMS": DataUnpickler._set_items,
        "ADDITEMS": DataUnpickler._add_items,
        "FROZENSET": DataUnpickler._frozen_set,
        "DICT": DataUnpickler._dict,
        "FRAME": DataUnpickler._frame,
    }
    table: Handlers = {}
    for code in range(256):
        name = names.get(code, f"0x{code:02x}")
        known = name in _KNOWN
        table[code] = ours.get(name, pickle._Unpickler.dispatch[code]) if known else _refusal(name)
    return table


DataUnpickler.dispatch = _table()
