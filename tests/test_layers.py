"""Packages import one way: flows, then tasks, then portrait_core, and inside of it downwards in one order."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LAYERS = (
    "text",
    "errors",
    "runtime",
    "settings",
    "store",
    "media",
    "inputs",
    "weights",
    "cameras",
    "face_model",
    "tracking",
    "template",
    "generators",
    "photograph",
    "inversion",
    "rendering",
    "baselines",
    "metrics",
    "attribute_editing",
    "model_files",
    "dataset",
    "pipeline",
    "report",
    "evaluation",
    "training",
    "tasks",
    "flows",
)
"""Every package, each importing only from those before it."""


def _layer(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "portrait_core" and len(parts) > 1 else parts[0]


def _imports(path: Path) -> Iterator[str]:
    """Modules of this project that a file imports, also inside functions and for types alone."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "portrait_core" else []
            names += [f"{node.module}.{alias.name}" for alias in node.names if node.module == "portrait_core"]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in ("portrait_core", "tasks", "flows"))


def _files() -> Iterator[tuple[str, Path]]:
    for package in ("portrait_core", "tasks", "flows"):
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if module != "portrait_core":
                yield module, path


def test_every_package_has_its_layer() -> None:
    assert {_layer(module) for module, _ in _files()} == set(LAYERS)


def test_imports_run_one_way() -> None:
    rank = {name: place for place, name in enumerate(LAYERS)}
    wrong = [
        f"{module} imports {imported}"
        for module, path in _files()
        for imported in _imports(path)
        if rank[_layer(imported)] > rank[_layer(module)]
    ]
    assert wrong == []


def test_the_check_sees_an_import_inside_a_function(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("def f():\n    from portrait_core import rendering\n    import tasks.running\n")
    assert list(_imports(file)) == ["portrait_core.rendering", "tasks.running"]
