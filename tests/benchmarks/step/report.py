"""Tables of what was measured of steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.benchmarks.step.counting import PARTS
from tests.benchmarks.tables import Grid

Rows = Sequence[dict[str, Any]]

COUNTED = (
    "Kernels: operations that are no views, on the second device of the tests, in forward pass, backward "
    "pass and Adam; a card's libraries may start several kernels for one. GFLOP by "
    "torch.utils.flop_counter: convolutions and matrix products, two per multiplication and addition; it "
    "leaves out everything else (activations, look-ups in planes, sampling, norms, Adam). The rest: "
    "latents, patches, masks, terms of the loss. Copies between devices and values that the host reads: "
    "per step, between two readings of the loss. Capturable: no copy, no read, and two steps of the kind "
    "have the same operations, shapes and constants; - where one step alone was counted. Tuning on whole "
    "images keeps Φ's maps of its targets, which for 100 frames of 512 pixels are 12.8 GB; where a quarter "
    "of a card's memory does not hold them, a step computes Φ twice."
)
PREPARED = (
    "CPU milliseconds on one thread, with frames of the real size, but not read from a store. The host's "
    "own: targets, masks, draws, and the loop's own tensors. Φ of targets and the rasterised head are "
    "computed by the device, here a CPU, whose memory for frames does not hold Φ's maps of tuning's. Of "
    "inversion: a frame's preparation divided by its steps."
)
CARD = (
    "ms per step: inside a block of steps, by events on the card; whole: with the block's preparation and "
    "the reading of its losses, for a later frame with its target and the capture of its graph. Share: "
    "FLOP of the counted operations per second of the first column (of the second where that is empty), over "
    "those of a product of 8192 x 8192 matrices at the same precision in the same process. s per 100 "
    "frames: all steps of inversion and tuning at their whole times, without the store and the pictures of "
    "the latents."
)


def _split(values: dict[str, float], digits: int) -> list[str]:
    cells = [values[part] for part in PARTS]
    return [f"{cell:,.{digits}f}" for cell in (*cells, sum(cells))]


def _amount(value: float) -> str:
    return f"{value:g}"


def counts(rows: Rows) -> list[Grid]:
    """Kernels, GFLOP, copies, reads and whether a graph can hold the step."""
    capturable = {True: "yes", False: "no", None: "-"}
    lines = [
        [
            *(row["profile"], row["what"]),
            *_split(row["kernels"], 0),
            *(_amount(row["copies"]), _amount(row["reads"]), capturable[row["capturable"]]),
        ]
        for row in rows
    ]
    headings = ["profile", "step of", *PARTS, "all"]
    ends = frozenset(i for i, row in enumerate(rows[1:]) if row["profile"] != rows[i]["profile"])
    waits = ["copies", "reads", "capturable"]
    kernels = Grid("Kernels per step", [*headings, *waits], lines, "", n_text=2, section_ends=ends)
    flop = [[row["profile"], row["what"], *_split(row["gflop"], 1)] for row in rows]
    return [kernels, Grid("GFLOP per step", headings, flop, COUNTED, n_text=2, section_ends=ends)]


def places(rows: Rows) -> list[str]:
    """Where steps copied or read, one line each."""
    return [f"{row['profile']}, {row['what']}: {wait}" for row in rows for wait in row["waits"]]


def preparation(rows: Rows) -> Grid:
    """Milliseconds of the host's own work."""
    lines = [
        [row["profile"], row["what"], row["note"], *(f"{row[name]:.2f}" for name in ("own", "Φ", "head"))]
        for row in rows
    ]
    headings = ["profile", "step of", "measured", "host's own", "Φ", "head"]
    return Grid("Preparation, CPU ms per step", headings, lines, PREPARED, n_text=3)


def cpu_seconds(rows: Rows) -> Grid:
    """CPU seconds per step."""
    lines = [[row["profile"], row["what"], f"{row['cpu_s']:.2f}", str(row["steps"])] for row in rows]
    caption = "One thread, float32, the CPU's own fused functions; means over the steps measured."
    return Grid("CPU seconds per step", ["profile", "step of", "CPU s", "steps measured"], lines, caption, 2)


def card(results: Sequence[tuple[str, bool, dict[str, Any]]]) -> Grid:
    """Times on a card: of a profile, whether steps were captured, and what the process said."""
    lines, ends = [], set()
    for profile, graphs, said in results:
        for name, loop in said["loops"].items():
            share = 1e12 * loop["gflop"] / loop.get("ms", loop["whole_ms"]) / said["limit"]
            lines.append(
                [
                    *(profile, said["precision"], "captured" if graphs else "plain", name),
                    f"{loop['ms']:.2f}" if "ms" in loop else "-",
                    *(f"{loop['whole_ms']:.2f}", f"{100 * share:.0f} %"),
                    f"{said['seconds_100']:,.0f}",
                    f"{said['peak_mib']:,.0f}",
                ]
            )
        ends.add(len(lines) - 1)
    headings = ["profile", "precision", "steps", "step of"]
    headings += ["ms per step", "whole", "share", "s per 100 frames", "MiB"]
    where = results[0][2]["card"] if results else ""
    limits = {said["precision"]: said["limit"] / 1e12 for _, _, said in results}
    measured = ", ".join(f"{name} {value:.0f}" for name, value in limits.items())
    caption = f"{CARD} The product's TFLOP/s: {measured}."
    return Grid(f"On {where}", headings, lines, caption, n_text=4, section_ends=frozenset(ends))
