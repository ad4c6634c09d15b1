"""Probes of meshes, safetensors and folders of weights, and of weights that are no regular files."""

from __future__ import annotations

import json
import os

from tests.hostile import files_weights as weights
from tests.hostile.bench import Bench, Open, in_order, refused, shown, small
from tests.hostile.files_media import png
from tests.hostile.files_stores import sparse
from tests.hostile.probes_weights import check
from tests.hostile.registry import probe


@probe("weights21", "medium-low")
def mesh_of_huge_numbers(bench: Bench) -> str:
    """An OBJ with indices beyond integers, words without end, and no numbers."""
    start = "v 0 0 0\nvt 0 0\n"
    for text in (
        start + "f 99999999999999999999999/1 1/1 1/1\n", start + "f 1/99999999999999999999999 1/1 1/1\n",
        start + "f " + "1/1 " * 1_000_000 + "\n", start + "f -1/-1 -1/-1 -1/-1\n",
        "vt\n" + start + "f 1/1 1/1 1/1\n",
        start + "vt nan inf\nf 1/2 1/2 1/2\n", start + "f a/b c/d e/f\n",
        start + "f 1/" + "9" * 5000 + " 1/1 1/1\n",
    ):  # fmt: skip
        ended = check(bench, bench.place("head_template.obj", text))
        in_order(ended)
    return shown(ended.last_line)


@probe("weights21", "medium")
def safetensors_that_announce(bench: Bench) -> str:
    """A generator of a few kilobytes whose settings announce layers without end."""
    for changes in (
        {"w_dim": 200_000}, {"z_dim": 2_000_000_000}, {"channels": {"4": 100_000, "8": 100_000}},
        {"mapping_layers": 10_000_000}, {"plane_channels": 10**9}, {"neural_resolution": 10**6},
        {"sampling": {"near": 2.25, "far": 3.15, "n_coarse": 10**9, "n_fine": 6}},
        {"background": {"resolution": 100_000, "basis_maps": 4}}, {"basis_planes": {"32": 10**7}},
    ):  # fmt: skip
        path = weights.generator_announcing(bench.folder / "g.safetensors", **changes)
        ended = check(bench, path, 40.0)
        try:
            in_order(ended)
            small(ended, check(bench, bench.place("vgg.pth", b"x")))
        except Open as found:
            raise Open(f"{changes}: {found}") from None
    return shown(ended.last_line)


@probe("weights21", "medium")
def flow_that_announces(bench: Bench) -> str:
    """A StyleFlow file whose settings announce widths, steps and attributes without end."""
    conditions = json.dumps({"attributes": [{"name": "a"}]})
    for settings, solver in (
        ({"width": 10**9, "context": 1}, {}), ({"width": 512, "context": 1, "hidden": [10**9]}, {}),
        ({"width": 512, "context": 1, "hidden": [8] * 1_000_000}, {}), ({"width": -1, "context": 1},
        {"steps": 10**12}),
    ):  # fmt: skip
        about = {"settings": json.dumps(settings), "solver": json.dumps(solver), "conditions": conditions}
        data = weights.safetensors({}, {"attribute_flow": json.dumps(about)})
        ended = check(bench, bench.place("f.safetensors", data), 40.0)
        try:
            refused(ended)
            small(ended, check(bench, bench.place("vgg.pth", b"x")))
        except Open as found:
            raise Open(f"{str(settings)[:60]}: {found}") from None
    return shown(ended.last_line)


@probe("weights21", "medium")
def sparse_weights(bench: Bench) -> str:
    """Files of weights of 20 GB that take no room, in every format."""
    for name in (
        "vgg16-397923af.pth", "generic_model.pkl", "landmark_embedding.npy", "similarity_Lm3D_all.mat",
        "w600k_r50.onnx", "head_template.obj", "FLAME_masks.pkl", "network.pkl", "uv_face_mask.png",
        "g.safetensors", "buffalo_l.zip", "face_recognition.safetensors", "modellarge10k.pt",
    ):  # fmt: skip
        path = sparse(bench.folder / name, 20 << 30)
        if name.endswith(".safetensors"):
            head = weights.safetensors(
                {"a": ("U8", [(20 << 30) - 4096])}, {"n_shape": "1", "generator": "{}"}
            )
            with path.open("r+b") as file:
                file.write(head)
            os.truncate(path, len(head) + (20 << 30) - 4096)
        ended = check(bench, path, 40.0)
        try:
            refused(ended)
            small(ended, check(bench, bench.place("vgg.pth", b"x")))
        except Open as found:
            raise Open(f"{name}: {found}") from None
    return shown(ended.last_line)


@probe("weights21", "medium")
def weights_are_pipes(bench: Bench) -> str:
    """Pipes and endless devices in the place of weights, and beside them."""
    for name in ("vgg16-397923af.pth", "generic_model.pkl", "similarity_Lm3D_all.mat", "w600k_r50.onnx",
                 "head_template.obj", "g.safetensors", "landmark_embedding.npy", "n.pkl",
                 "buffalo_l.zip"):  # fmt: skip
        path = bench.folder / name
        for target in ("pipe", "/dev/zero"):
            path.unlink(missing_ok=True)
            if target == "pipe":
                os.mkfifo(path)
            else:
                path.symlink_to(target)
            ended = check(bench, path, 20.0)
            try:
                refused(ended)
                small(ended, check(bench, bench.place("vgg.pth", b"x")))
            except Open as found:
                raise Open(f"{name}, {target}: {found}") from None
    return shown(ended.last_line)


@probe("weights21", "medium")
def pipe_beside_a_generator(bench: Bench) -> str:
    """The JSON file beside a generator is a pipe, and 20 GB of nothing."""
    path = weights.generator_announcing(bench.folder / "g.safetensors")
    about = path.with_suffix(".json")
    os.mkfifo(about)
    said = in_order(check(bench, path, 30.0))
    about.unlink()
    sparse(about, 20 << 30)
    ended = check(bench, path, 30.0)
    in_order(ended)
    small(ended, check(bench, bench.place("vgg.pth", b"x")))
    return said


@probe("weights21", "medium")
def folder_of_models(bench: Bench) -> str:
    """A PORTRAIT_MODELS folder with pipes, devices and folders: `models check`, `list`, `where`, `doctor`."""
    folder = bench.folder / "models"
    folder.mkdir()
    os.mkfifo(folder / "vgg16-397923af.pth")
    (folder / "modellarge10k.pt").symlink_to("/dev/zero")
    (folder / "generic_model.pkl").mkdir()
    sparse(folder / "epoch_20.pth", 20 << 30)
    said = ""
    for command in (["models", "list"], ["models", "where"], ["doctor"], ["models", "check"]):
        ended = bench.portrait(*command, seconds=60.0, PORTRAIT_MODELS=str(folder))
        try:
            said = in_order(ended, 45.0)
            if ended.peak_mb > 2500:
                raise Open(f"{ended.peak_mb:.0f} MB")
        except Open as found:
            raise Open(f"{' '.join(command)}: {found}") from None
    return said


@probe("weights21", "medium")
def masks_as_bombs(bench: Bench) -> str:
    """A mask of texels of 88 megapixels."""
    ended = check(bench, bench.place("uv_face_mask.png", png(9400, 9400, 16, 0)))
    small(ended, check(bench, bench.place("vgg.pth", b"x")), 1000.0)
    return in_order(ended)


@probe("weights21", "medium")
def generator_of_a_row(bench: Bench) -> str:
    """A manifest's row names a hostile generator, which `dataset plan` looks at."""
    path = bench.folder / "pipe.safetensors"
    os.mkfifo(path)
    (bench.folder / "zero.safetensors").symlink_to("/dev/zero")
    rows = [
        {"overrides": f"generator.weights={one}", "name": f"r{i}"}
        for i, one in enumerate(
            (path, bench.folder / "zero.safetensors", "/proc/kcore", "http://127.0.0.1:9/x")
        )
    ]
    ended = bench.portrait(
        "dataset", "plan", bench.manifest(rows), "--store", bench.folder / "s", seconds=60.0
    )
    return in_order(ended)
