"""The command line with faults: ``python -m tests.faults.injected FAULTS -- reenact ...``.

FAULTS is ``none`` or a comma-separated list of ``action=where:moment``:

- action: ``kill`` (SIGKILL to itself), ``stop`` (SIGSTOP to itself), ``fill`` (fill the disk that
  ``PORTRAIT_FAULT_FILL`` names), ``cuda`` (raise the error of a GPU's context that broke).
- where: a stage, with the moments ``before-data``, ``after-data`` (its marker is about to be written) and
  ``after-marker``; or a pattern of object names (it holds a ``/``), with ``before`` and ``after``.

Each fault fires once, in whichever process gets there first: a file made with O_EXCL says that it did. Every
write to the store passes ``Files.put``, so that is the only thing patched; the program knows of none of this.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from portrait_core.store.files import Files
from tests.faults.events import Written, note, written

FAULTS, FOLDER, FILL = "PORTRAIT_FAULTS", "PORTRAIT_FAULT_FOLDER", "PORTRAIT_FAULT_FILL"
LEFT_FREE_BYTES = 6000
"""Left on a filled disk: more than nothing and less than a picture, so that a chunk ends in its middle."""
CUDA_ERROR = "CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE_CUDA_DSA`"
"""As PyTorch words it: after such an error every later call to CUDA in the process fails."""


@dataclass(frozen=True)
class Fault:
    """One fault, as its text says it."""

    action: str
    where: str
    moment: str

    @classmethod
    def parsed(cls, text: str) -> Fault:
        """From ``action=where:moment``."""
        action, _, rest = text.partition("=")
        where, _, moment = rest.rpartition(":")
        return cls(action, where, moment)

    def is_due(self, name: str, what: Written, moment: str) -> bool:
        """Whether it strikes ``before`` or ``after`` this object is written."""
        if "/" in self.where:
            return self.moment == moment and fnmatch(name, self.where)
        sort, when = _MOMENTS[self.moment]
        return (what.stage, what.sort, moment) == (self.where, sort, when)


_MOMENTS = {
    "before-data": ("data", "before"),
    "after-data": ("marker", "before"),
    "after-marker": ("marker", "after"),
}


def faults_of(text: str) -> list[Fault]:
    """The faults of a list."""
    return [] if text in ("", "none") else [Fault.parsed(part) for part in text.split(",")]


def inject() -> None:
    """Patch this process's writes as the environment says."""
    folder, faults = Path(os.environ[FOLDER]), faults_of(os.environ.get(FAULTS, ""))
    put = Files.put

    def observed(self: Files, objects: Mapping[str, bytes], *more: Any, **named: Any) -> None:
        if faults and len(objects) > 1:  # one by one, so that a fault can come between them
            for name, value in objects.items():
                observed(self, {name: value}, *more, **named)
            return
        known = {name: written(name) for name in objects}
        _strike(folder, faults, known, "before")
        put(self, objects, *more, **named)
        _strike(folder, faults, known, "after")

    Files.put = observed  # type: ignore[method-assign]  # this is the injection


def _strike(folder: Path, faults: list[Fault], known: Mapping[str, Written], moment: str) -> None:
    for name, what in known.items():
        note(folder / "events.jsonl", "begin" if moment == "before" else "end", name, what)
        for fault in faults:
            if fault.is_due(name, what, moment) and _first(folder, fault):
                _act(fault.action)


def fired_file(folder: Path, fault: Fault) -> Path:
    """The file that says that a fault was injected."""
    return folder / "fired" / re.sub(r"[^A-Za-z0-9.-]+", "_", f"{fault.action}_{fault.where}_{fault.moment}")


def _first(folder: Path, fault: Fault) -> bool:
    path = fired_file(folder, fault)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        return False
    return True


def _act(action: str) -> None:
    if action == "fill":
        _fill(Path(os.environ[FILL]))
    elif action == "cuda":
        raise RuntimeError(CUDA_ERROR)
    else:
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[action])


def _fill(folder: Path) -> None:
    """Take all space of the disk but a little."""
    free = shutil.disk_usage(folder).free
    with (folder / "filler").open("wb") as file:
        file.write(b"x" * max(0, free - LEFT_FREE_BYTES))


def main(arguments: list[str]) -> None:
    """``FAULTS -- ARGUMENTS`` of the command line."""
    os.environ[FAULTS] = arguments[0]
    inject()
    from flows.cli.main import main as portrait

    sys.argv = ["portrait", *arguments[arguments.index("--") + 1 :]]
    portrait()


if __name__ == "__main__":
    main(sys.argv[1:])
