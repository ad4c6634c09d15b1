"""Probes of servers, tables of labels and requests for evaluations."""

from __future__ import annotations

import gzip
import time
from typing import Any

from tests.hostile import files_stores as stores
from tests.hostile.bench import Bench, Open, in_order, refused, samples, shown, small
from tests.hostile.probes_tables import HEADER, LABELS, check, ours_small
from tests.hostile.registry import probe
from tests.hostile.website import website


@probe("tables", "medium-low", 13)
def body_without_end(bench: Bench) -> str:
    """A manifest and a picture from a server whose answer never ends."""

    def endless(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(HEADER.encode())
            piece = b"a,b,c,,,,,\n" * 100_000
            while True:
                handler.wfile.write(piece)

    with website({"/m.csv": endless, "/a.png": endless}) as (address, _):
        innocent = check(bench, bench.manifest([{}], "innocent.csv"))
        for what, arguments in (
            ("manifest", ["dataset", "check", f"{address}/m.csv"]),
            (
                "picture",
                [
                    "dataset",
                    "check",
                    "--deep",
                    bench.manifest([{"portrait": f"{address}/a.png"}]),
                    *bench.private_hosts,
                ],
            ),
        ):
            ended = bench.portrait(*arguments, seconds=45.0, memory=6 << 30)
            used = sum(p.stat().st_size for p in (bench.folder / "cache").rglob("*") if p.is_file()) / 1e6
            if used > 2500:
                raise Open(f"{what}: {used:.0f} MB on the disk, exit {ended.code}")
            try:
                refused(ended)
                small(ended, innocent, 1200.0)
            except Open as found:
                raise Open(f"{what}: {found}") from None
    return shown(ended.last_line)


@probe("tables", "medium")
def redirect_inside(bench: Bench) -> str:
    """A server redirects from a public address to one of this machine, or to a file."""
    with website({"/inner.png": samples()[0].read_bytes()}) as (inner, seen):

        def redirect(handler: Any) -> None:
            handler.send_response(302)
            handler.send_header("Location", "file:///etc/passwd")
            handler.end_headers()

        with website({"/a.png": redirect}) as (address, _):
            ended = bench.portrait(
                "dataset",
                "check",
                "--deep",
                bench.manifest([{"portrait": f"{address}/a.png"}]),
                *bench.private_hosts,
                seconds=60.0,
            )
        del seen, inner
    return refused(ended)


@probe("tables", "medium")
def server_that_lies_about_length(bench: Bench) -> str:
    """A server announces a petabyte, and another sends compressed nothing that grows to gigabytes."""
    grown = gzip.compress(bytes(1 << 28), 9)

    def petabyte(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(10**15))
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(b"x" * 1000)

    def inflated(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(grown) * 12))
        handler.end_headers()
        if handler.command == "GET":
            for _ in range(12):
                handler.wfile.write(grown)

    with website({"/a.png": petabyte, "/b.csv": inflated, "/c.csv": petabyte}) as (address, _):
        innocent = check(bench, bench.manifest([{}], "innocent.csv"))
        for what, arguments in (
            (
                "picture",
                [
                    "dataset",
                    "check",
                    bench.manifest([{"portrait": f"{address}/a.png"}]),
                    "--deep",
                    *bench.private_hosts,
                ],
            ),
            ("manifest", ["dataset", "check", f"{address}/c.csv"]),
            ("gzip", ["dataset", "check", f"{address}/b.csv"]),
        ):
            ended = bench.portrait(*arguments, seconds=40.0)
            try:
                refused(ended)
                small(ended, innocent, 1200.0)
            except Open as found:
                raise Open(f"{what}: {found}") from None
    return shown(ended.last_line)


@probe("tables", "medium")
def server_that_drips(bench: Bench) -> str:
    """A server that sends a byte per second without end."""

    def drip(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        if handler.command == "GET":
            while True:
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(1)

    with website({"/m.csv": drip}) as (address, _):
        ended = bench.portrait("dataset", "check", f"{address}/m.csv", seconds=150.0)
    return refused(ended)


# Others: labels and evaluations


@probe("tables", "medium")
def labels_of_many_kinds(bench: Bench) -> str:
    """Tables of labels: Parquet that grows, numbers of a million digits, names of the same key."""
    bomb = stores.parquet_of_equal_cells(3_000_000, "x" * 300, ("picture", "age"))
    digits = "picture,age\n" + "9" * 4500 + ",3\n"
    value = "picture,age\na.png," + "9" * 1_000_000 + "\n"
    many = "picture,age\n" + "a.png,nan\n" * 300_000
    for name, data in (("a.parquet", bomb), ("b.csv", digits), ("c.csv", value), ("d.csv", many)):
        try:
            said = ours_small(bench, bench.python(LABELS, bench.place(name, data)))
        except Open as found:
            raise Open(f"{name}: {found}") from None
    return said


@probe("tables", "medium")
def labels_by_chains(bench: Bench) -> str:
    """`edit.labels` of a row as a chain of URLs."""
    with website({"/l.csv": b"picture,age\na.png,3\n"}) as (address, requests):
        cell = f"edit.labels=simplecache::{address}/l.csv; edit.attributes=[age=+1]"
        ended = bench.portrait(
            "dataset",
            "plan",
            bench.manifest([{"overrides": cell}]),
            "--store",
            bench.folder / "s",
            seconds=60.0,
        )
        if requests:
            raise Open(f"fetched {requests}")
    return in_order(ended)


@probe("tables", "medium")
def evaluation_of_odd_methods(bench: Bench) -> str:
    """`evaluate` with methods whose changes choose the runner, and globs that leave."""
    said = ""
    for method in (
        "x: runner.kind=address",
        "a/../b: media.max_frames=2",
        "x: " + "a=1 " * 10_000,
        "\x1b[31m",
    ):
        ended = bench.portrait(
            "evaluate", "--store", bench.folder / "s", "--out", bench.folder / "o", "--method", method,
            "--clips", "1", seconds=40.0,
        )  # fmt: skip
        said = refused(ended)
    return said
