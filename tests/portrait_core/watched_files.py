"""Files whose every operation is seen, and can be stopped or preceded by something else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from portrait_core.store.files import Files


@dataclass(frozen=True)
class Operation:
    """One operation on one object or folder."""

    what: str
    """``put``, ``get``, ``get_range``, ``list``, ``sizes``, ``delete`` or ``delete_folder``."""
    name: str

    @property
    def changes(self) -> bool:
        """Whether it changes the store."""
        return self.what in ("put", "delete", "delete_folder")


class Killed(BaseException):
    """The process ends here."""


class WatchedFiles(Files):
    """Every object is an operation of its own; ``before`` is called before each."""

    def __init__(self, url: str, before: Callable[[Operation], object] = lambda _: None) -> None:
        super().__init__(url)
        self.before = before
        self.seen: list[Operation] = []

    def _note(self, what: str, name: str) -> None:
        operation = Operation(what, name)
        self.before(operation)
        self.seen.append(operation)

    def put(self, objects: Mapping[str, bytes]) -> None:
        for name, value in objects.items():
            self._note("put", name)
            super().put({name: value})

    def get(self, names: Iterable[str], most: int | None = None) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for name in names:
            self._note("get", name)
            found |= super().get([name], most)
        return found

    def get_range(self, name: str, start: int, stop: int) -> bytes | None:
        self._note("get_range", name)
        return super().get_range(name, start, stop)

    def list(self, folder: str) -> list[str]:
        self._note("list", folder)
        return super().list(folder)

    def sizes(self, folder: str) -> dict[str, int]:
        self._note("sizes", folder)
        return super().sizes(folder)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            self._note("delete", name)
            super().delete([name])

    def delete_folder(self, folder: str) -> None:
        self._note("delete_folder", folder)
        super().delete_folder(folder)


class Ends:
    """``before=Ends(n)``: the process is killed before its n-th operation that changes the store."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, operation: Operation) -> None:
        if operation.changes:
            if self.left == 0:
                raise Killed
            self.left -= 1


class Between:
    """``before=Between(act)``: ``act`` runs before every operation, but not before its own."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act
        self.busy = False

    def __call__(self, operation: Operation) -> None:
        if not self.busy:
            self.busy = True
            try:
                self.act()
            finally:
                self.busy = False
