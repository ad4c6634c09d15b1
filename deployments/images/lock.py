"""Write requirements.txt: the packages of the images, exact versions with the hashes of their files.

    python deployments/images/lock.py      # after a change of the dependencies in pyproject.toml; needs uv

uv resolves what pyproject.toml asks for, with its constraints and without the development group, and
hatchling, which installs the program itself. Of each package only the wheels count that an image may
install: Linux on x86-64 or ARM, and the Pythons of the two base images. pip accepts no other file, from
whatever registry it comes; requirements.txt names none. It serves both images: PyTorch's package has CUDA
in it, and works without.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ("hatchling", "editables")
"""Packages that pip needs in order to install the program as it lies in /app."""
PYTHONS = ("3.11", "3.12")
MARKER = "python_full_version >= '3.11'"
"""A condition that every image fulfils."""


def _serves(wheel: str) -> bool:
    """Tell whether a wheel, given its file name, is for one of the images."""
    python, abi, platform = wheel.removesuffix(".whl").split("-")[-3:]
    if platform != "any" and not re.search(r"linux\w*_(x86_64|aarch64)\b", platform):
        return False
    if "musllinux" in platform:
        return False
    exact = {f"cp{version.replace('.', '')}" for version in PYTHONS}
    versions = set(python.split("."))
    if abi == "abi3":
        return any(int(version[3:] or 0) <= 12 for version in versions if version.startswith("cp3"))
    return bool(versions & (exact | {"py3"})) and (abi == "none" or abi in exact)


def _resolved() -> list[dict[str, object]]:
    """Return the packages that uv resolves, as PEP 751 describes them."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "build.in").write_text("\n".join(BUILD))
        target = Path(folder) / "pylock.toml"
        command = ["uv", "pip", "compile", "pyproject.toml", f"{folder}/build.in", "--universal", "--quiet"]
        command += ["--python-version", PYTHONS[0], "--format", "pylock.toml", "--output-file", str(target)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return list(tomllib.loads(target.read_text())["packages"])


def _entry(package: dict[str, object]) -> str:
    """Return a package's lines."""
    wheels: Any = package.get("wheels", ())
    hashes = sorted(wheel["hashes"]["sha256"] for wheel in wheels if _serves(wheel["url"].rsplit("/", 1)[1]))
    if not hashes:
        raise SystemExit(f"{package['name']} {package['version']}: no wheel for an image")
    marker = str(package.get("marker", MARKER))
    condition = "" if marker == MARKER else " ; " + marker.removeprefix(f"{MARKER} and ")
    lines = [f"{package['name']}=={package['version']}{condition}"]
    return " \\\n".join([*lines, *(f"    --hash=sha256:{one}" for one in hashes)])


def main() -> None:
    """Run the command."""
    elsewhere = re.compile(r"sys_platform == '(never|win32|emscripten)'$")
    kept = [package for package in _resolved() if not elsewhere.search(str(package.get("marker", "")))]
    entries = "\n".join(_entry(package) for package in kept)
    made = "# Made by `python deployments/images/lock.py`"
    head = f"{made}: wheels for Linux, x86-64 and ARM, Python {' and '.join(PYTHONS)}.\n"
    (HERE / "requirements.txt").write_text(f"{head}{entries}\n")


if __name__ == "__main__":
    main()
