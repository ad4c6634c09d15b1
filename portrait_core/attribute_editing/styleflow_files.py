"""StyleFlow files: this project's safetensors files and the published weights.

This project's files hold the settings, the meaning of the conditions and, where there is one, the reader of
latents.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from portrait_core.attribute_editing.conditions import PUBLISHED_CONDITIONS, Conditions
from portrait_core.attribute_editing.latent_edits import StyleFlowModel
from portrait_core.attribute_editing.latent_reader import LatentReader, reader_shapes
from portrait_core.attribute_editing.settings import SolverSettings, StyleFlowArchitecture
from portrait_core.attribute_editing.styleflow import StyleFlow
from portrait_core.runtime.whole_files import partial_file
from portrait_core.weights.file_checks import checking
from portrait_core.weights.readers.brief import listed
from portrait_core.weights.readers.safetensors_files import open_safetensors
from portrait_core.weights.readers.torch_files import (
    Shapes,
    network_shapes,
    read_styleflow,
    select_tensors,
)

_METADATA = "attribute_flow"
_READER = "reader."
"""Prefix of the names of a reader's tensors."""


def save_styleflow(
    model: StyleFlowModel, path: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Write weights (float32), settings, conditions and reader to one file, atomically.

    The same model always gives the same bytes.

    Args:
        model: the StyleFlow with its conditions and reader.
        path: the file.
        metadata: further strings, such as the licence and the generator whose w it maps.

    Raises:
        ValueError: a weight is not finite, or conditions, reader and flow are of different widths.
    """
    flow, conditions, reader = model
    _check_context(flow.settings, conditions)
    state = flow.state_dict()
    if reader is not None:
        reader.check(flow.settings.width, conditions)
        state |= {_READER + name: value for name, value in reader.tensors().items()}
    tensors = {k: v.detach().to("cpu", torch.float32).contiguous() for k, v in state.items()}
    # a counter of evaluations, which means nothing outside training
    tensors |= {k: torch.zeros_like(v) for k, v in tensors.items() if k.endswith("_num_evals")}
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} has values that are not finite; train again at a lower rate")
    about = {
        **(metadata or {}),
        "settings": flow.settings.model_dump_json(),
        "solver": flow.solver.model_dump_json(),
        "conditions": conditions.model_dump_json(),
    }
    about.pop("reader_r2", None)  # belongs to the file that the metadata came from
    if reader is not None:
        about["reader_r2"] = json.dumps(reader.r2)
    with partial_file(path) as partial:
        # one entry, since safetensors writes several in an order that differs between calls
        save_file(tensors, partial, metadata={_METADATA: json.dumps(about, sort_keys=True)})


def styleflow_bytes(model: StyleFlowModel, metadata: Mapping[str, str]) -> bytes:
    """Return the content of a file of :func:`save_styleflow`."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "flow.safetensors"
        save_styleflow(model, path, metadata)
        return path.read_bytes()


def load_styleflow(path: str | Path, device: str | torch.device = "cpu") -> StyleFlowModel:
    """Read a ``.safetensors`` file of :func:`save_styleflow`, or published weights of any other ending.

    Returns:
        The model in eval mode, without gradients.

    Raises:
        ValueError: the file is of another kind, or its weights do not fit; a ``ModelFileError`` for published
            ones.
    """
    path = Path(path)
    model = _own(path) if path.suffix == ".safetensors" else load_published_styleflow(path)
    model.flow.to(device)
    return model


def load_published_styleflow(path: str | Path) -> StyleFlowModel:
    """Read published weights (``modellarge10k.pt``, a bare ``state_dict``) with the allow-list reader.

    They have 512 dimensions and the 17 published conditions. Nothing in the file is run.

    Raises:
        ModelFileError: the file is missing, holds more than tensors, or is another network's.
    """
    with checking(path, "styleflow"):
        state = read_styleflow(path)
        shapes = published_shapes()
        other = [name for name in state if name not in shapes]
        if other:
            more = f" and {len(other) - 3} more" if len(other) > 3 else ""
            raise ValueError(f"StyleFlow does not have {listed(other[:3])}{more}: it is another network's")
        state = select_tensors(state, shapes, "StyleFlow")
        return StyleFlowModel(_filled(StyleFlowArchitecture(), SolverSettings(), state), PUBLISHED_CONDITIONS)


def is_styleflow_file(path: str | Path) -> bool:
    """Tell whether a file was written by :func:`save_styleflow`, by its metadata."""
    if Path(path).suffix != ".safetensors":
        return False
    try:
        with open_safetensors(path, "np") as file:
            return _METADATA in (file.metadata() or {})
    except (ValueError, OSError):
        return False


def styleflow_metadata(path: str | Path) -> dict[str, str]:
    """Read the strings that :func:`save_styleflow` wrote beside the weights.

    These are ``settings``, ``solver``, ``conditions`` (JSON), ``reader_r2`` (a JSON list, with a reader), and
    the strings of the caller.

    Raises:
        ValueError: the file is of another kind.
    """
    try:
        with open_safetensors(path, "np") as file:
            about = (file.metadata() or {}).get(_METADATA)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"cannot read a StyleFlow from {path}: {error}; expected a file of save_styleflow"
        ) from error
    parsed = None if about is None else _parsed(about)
    if not isinstance(parsed, dict) or not {"settings", "conditions"} <= parsed.keys():
        raise ValueError(f"{path} holds no settings of a StyleFlow; expected a file of save_styleflow")
    return parsed


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


@cache
def published_shapes() -> Shapes:
    """Return names and shapes of the published state: 42 entries."""
    return network_shapes(lambda: StyleFlow(StyleFlowArchitecture()))


def _own(path: Path) -> StyleFlowModel:
    about = styleflow_metadata(path)
    try:
        settings = StyleFlowArchitecture.model_validate_json(about["settings"])
        solver = SolverSettings.model_validate_json(about.get("solver", "{}"))
        conditions = Conditions.model_validate_json(about["conditions"])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"{path}: settings do not fit ({place}: {first['msg']}); save the StyleFlow again"
        ) from error
    _check_context(settings, conditions)
    with open_safetensors(path) as file:
        # the reader checks the file's sizes before it allocates memory
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        shapes = _shapes_of(settings, len(tensors))
        flow = _filled(settings, solver, select_tensors(tensors, shapes, "the flow"))
        reader = _reader(tensors, about["reader_r2"], settings) if "reader_r2" in about else None
        return StyleFlowModel(flow, conditions, reader)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; expected a file of save_styleflow") from error


def _shapes_of(settings: StyleFlowArchitecture, tensors: int) -> Shapes:
    """Return the shapes of a flow, without memory for it: the settings may be a stranger's."""
    if len(settings.hidden) > tensors:
        raise ValueError(f"its settings name {len(settings.hidden)} layers, and it holds {tensors} tensors")
    try:
        return network_shapes(lambda: StyleFlow(settings))
    except (RuntimeError, TypeError, OverflowError) as error:  # sizes that no network can have
        raise ValueError(f"its settings make no network: {error!s:.200}") from error


def _reader(tensors: Mapping[str, Tensor], r2: str, settings: StyleFlowArchitecture) -> LatentReader:
    shapes = reader_shapes(settings.width, settings.context)
    state = select_tensors(tensors, {_READER + name: shape for name, shape in shapes.items()}, "the reader")
    if not bool((state[_READER + "scale"] > 0).all()):
        raise ValueError("the reader's scale has values that are not above 0")
    scores = _parsed(r2)
    numbers = isinstance(scores, list) and all(
        isinstance(v, float | int) and math.isfinite(v) for v in scores
    )
    if not numbers or len(scores) != settings.context:
        raise ValueError(f"the reader's R² is {r2[:40]}, expected a number for each attribute")
    return LatentReader.from_tensors({name: state[_READER + name] for name in shapes}, scores)


def _filled(
    settings: StyleFlowArchitecture, solver: SolverSettings, state: Mapping[str, Tensor]
) -> StyleFlow:
    for name, value in state.items():
        if name.endswith("running_var") and bool((value < 0).any()):
            raise ValueError(f"{name} has values below 0, which no variance has")
    with torch.device("meta"):
        flow = StyleFlow(settings, solver)
    flow.load_state_dict(state, assign=True)
    return flow.eval().requires_grad_(False)


def _check_context(settings: StyleFlowArchitecture, conditions: Conditions) -> None:
    if settings.context != len(conditions):
        raise ValueError(
            f"the flow takes {settings.context} numbers and its conditions name {len(conditions)}; "
            "set context to the number of attributes"
        )
