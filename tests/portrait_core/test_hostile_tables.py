"""Tables, profiles and servers of a stranger: what they announce, send and name costs what is allowed."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.registry import known_implementations, registry
from PIL import Image

from portrait_core.attribute_editing.label_tables import LabelsError, picture_key, read_labels
from portrait_core.dataset import manifest
from portrait_core.dataset.manifest import ManifestError, check_manifest, read_manifest
from portrait_core.errors import InputError
from portrait_core.inputs import downloads
from portrait_core.inputs.known import gather_facts
from portrait_core.inputs.problems import MAX_HELD, MAX_SHOWN
from portrait_core.inputs.sources import inspect_files, local_copy, read_bytes
from portrait_core.inputs.table import read_table, write_table
from portrait_core.runtime.addresses import PrivateAddressError, host_of, refuse_private, use_private_hosts
from portrait_core.settings import allowing_hosts_of, load_settings
from portrait_core.settings.limits import Limits, current_limits, use_limits
from portrait_core.store import retries
from portrait_core.store.places import SCHEMES, local_path, place_problem
from tests.portrait_core.website import website

HEADER = "portrait,video,licence,consent"


@pytest.fixture(autouse=True)
def _usual(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Limits and hosts are the process's, and are put back; failed requests are not repeated."""
    before = current_limits()
    monkeypatch.setattr(retries, "GIVE_UP_S", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    use_limits(before)
    use_private_hosts([])


def limited(**limits: int) -> None:
    """Set limits for the rest of the test."""
    use_limits(Limits(**limits))


def told(url: str | Path) -> str:
    """The message about a manifest that is refused as a whole."""
    with pytest.raises(ManifestError) as caught:
        read_manifest(str(url))
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A portrait, and a video as far as its status says."""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "v.mp4").write_bytes(b"no video")
    return tmp_path


# Tables


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f'{HEADER}\n"' + "x" * 30_000_000,
            "has a row of more than 1,048,544 characters; check its quotation",
        ),
        (f'{HEADER}\n"' + "x\n" * 10_000_000, "row 2: cannot be read (field larger than field limit"),
        (f"{HEADER}\n" + "," * 30_000_000, "has a row of more than 1,048,544 characters"),
        (f"{HEADER}\n" + ("," * 500_000 + '"\n"') * 40, "has a row of more than 1,048,544 characters"),
        ("\0" * 30_000_000, "has a row of more than 1,048,544 characters"),
        ("\n" * 3_000_000, "has a row of more than 1,048,544 characters"),
        (
            ",".join(f"c{i}" for i in range(2000)),
            "holds 2,000 columns, more than the 1,000 that limits.table",
        ),
    ],
    ids=["quote", "quoted lines", "separators", "separators in many lines", "nul", "blank", "columns"],
)
def test_a_row_without_end_is_refused_before_it_is_built(tmp_path: Path, text: str, words: str) -> None:
    data = text.encode()
    tracemalloc.start()
    try:
        said = "".join(map(str, read_table(data).problems))
    except InputError as error:
        said = str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert words in said
    assert peak < len(data) + 20e6, "the text is read as a stream, one row at a time"


def test_rows_are_counted_while_they_are_read(folder: Path) -> None:
    limited(table_rows=100)
    (folder / "m.csv").write_text(f"{HEADER}\n" + "a.png,v.mp4,x,y\n" * 150)
    assert "holds 101 rows, more than the 100 that limits.table_rows allows" in told(folder / "m.csv")
    (folder / "m.csv").write_text(f"{HEADER}\na.png,v.mp4,x,y\n" + "\n" * 500)
    assert "rows, more than the 100" in told(folder / "m.csv"), "empty ones cost time"
    (folder / "m.csv").write_text(f"{HEADER}\na.png,v.mp4,x,y\n" + "\n" * 150)
    assert len(read_manifest(str(folder / "m.csv")).rows) == 1


def test_a_cell_that_is_too_long_is_the_problem_of_its_row(folder: Path) -> None:
    limited(cell_characters=100)
    lines = [HEADER, f"a.png,v.mp4,x,{'y' * 101}", "a.png,v.mp4,x,y\0", "a.png,v.mp4,x,y"]
    (folder / "m.csv").write_text("\n".join(lines))
    found, problems = check_manifest(str(folder / "m.csv"))
    assert [row.number for row in found.rows] == [4]
    assert problems[0].text.startswith("the cell 'consent' holds 101 characters, more than the 100")
    assert problems[1].text == "the cell 'consent' holds a NUL character; delete it"


def test_a_table_is_not_read_beyond_its_limit(folder: Path) -> None:
    limited(table_bytes=1000)
    with (folder / "m.csv").open("wb") as file:
        file.truncate(1 << 40)
    words = "holds 1,099,511,627,776 bytes, more than the 1,000 that limits.table_bytes allows"
    assert words in told(folder / "m.csv")
    with pytest.raises(LabelsError, match=r"more than the 1,000 that limits\.table_bytes"):
        read_labels(str(folder / "m.csv"))
    os.mkfifo(folder / "pipe.csv")
    for place in (folder / "pipe.csv", "/dev/zero"):
        with pytest.raises(ManifestError):
            read_manifest(str(place))


def test_parquet_that_decodes_to_gigabytes_is_refused(folder: Path) -> None:
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * 70_000, pa.int32()), pa.array(["x" * 30_000]))
    target = io.BytesIO()
    pq.write_table(pa.table({"portrait": cells, "video": cells}), target, compression="zstd")
    assert len(target.getvalue()) < 10_000
    (folder / "m.parquet").write_bytes(target.getvalue())
    assert "that limits.table_bytes allows" in told(folder / "m.parquet")


def test_a_million_problems_are_counted_and_the_first_are_kept(folder: Path) -> None:
    number = MAX_HELD + 100
    (folder / "m.csv").write_text(f"{HEADER}\n" + "a.png,v.mp4,x,y,z\n" * number)
    with pytest.raises(ManifestError) as caught:
        read_manifest(str(folder / "m.csv"))
    error = pickle.loads(pickle.dumps(caught.value))
    assert (len(error.problems), error.more) == (MAX_HELD, 100)
    lines = str(error).splitlines()
    assert lines[0].endswith(f"{number:,} problems; nothing was started")
    assert lines[-1].endswith(f"more; `portrait dataset check` lists the first {MAX_HELD:,}")
    assert len(lines) == MAX_SHOWN + 2


def test_messages_do_not_repeat_a_cell_of_any_length(folder: Path) -> None:
    long = "z" * 30_000
    columns = f"name,profile,overrides,edit,{HEADER},{long}"
    (folder / "m.csv").write_text(f"{columns}\n{long},{long},{long}=1,{long},a.png,v.mp4,x,y,\n")
    problems = check_manifest(str(folder / "m.csv"))[1]
    assert len(problems) >= 4
    assert all(len(problem.text) < 1500 for problem in problems)


def test_many_overrides_and_edits_are_refused_or_read_fast(folder: Path) -> None:
    lines = [f"overrides,edit,{HEADER}", f"{'seed=1;' * 65},,a.png,v.mp4,x,y"]
    lines.append(f",{';'.join(f'a{i}=1' for i in range(4000))};a1=1,a.png,v.mp4,x,y")
    (folder / "m.csv").write_text("\n".join(lines))
    problems = check_manifest(str(folder / "m.csv"))[1]
    assert "sets 65 values; put more than 64 into a profile" in problems[0].text
    assert any("names a1 twice" in problem.text for problem in problems)


def test_a_picture_s_number_may_have_any_length(tmp_path: Path) -> None:
    assert picture_key("0" * 5000 + "7") == "7"
    assert picture_key("9" * 5000) == "9" * 5000
    assert picture_key("000") == "0"
    (tmp_path / "l.csv").write_text(f"picture,age\n{'9' * 5000},3\n")
    assert read_labels(str(tmp_path / "l.csv")) == {"9" * 5000: {"age": 3.0}}


@pytest.mark.slow
def test_a_table_of_two_hundred_megabytes_is_refused_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(f'{HEADER}\n"'.encode() + b"x" * 200_000_000)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))\n"
        "from portrait_core.inputs.sources import read_bytes\n"
        "from portrait_core.inputs.table import read_table\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_table(read_bytes(sys.argv[1], 'manifest'))\n"
        "except ValueError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 300_000, "KiB"


# Cells that a spreadsheet would compute

CELLS = [
    "=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'=1", "''=1", "'quoted'", "' x", " x", "a=1", "two\nlines",
    'with "quotes", and more', "-", "=", "'", "'=", "é=", "\u00a0=1",
]  # fmt: skip


@pytest.mark.parametrize("cell", CELLS)
def test_cells_that_are_written_are_read_again_and_compute_nothing(tmp_path: Path, cell: str) -> None:
    url = str(tmp_path / "m.csv")
    write_table(url, [{"portrait": cell, "video": "v.mp4"}])
    text = Path(url).read_text()
    assert text.splitlines()[1].lstrip('"')[0] not in "=+-@\t\r"
    assert read_table(Path(url).read_bytes()).records[0][1]["portrait"] == cell


def test_cells_of_other_programs_are_read_as_they_are() -> None:
    data = b"picture,age\n-3.png,-3\n=x,+4\n'a',5\n"
    cells = [record for _, record in read_table(data, ("picture", "age")).records]
    assert cells == [
        {"picture": "-3.png", "age": "-3"}, {"picture": "=x", "age": "+4"}, {"picture": "'a'", "age": "5"}
    ]  # fmt: skip


# One bad row or file


@pytest.mark.parametrize("error", [RuntimeError("odd"), MemoryError(), RecursionError("deep"), KeyError("x")])
def test_whatever_a_decoder_raises_is_the_problem_of_its_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: object) -> Any:
        raise error

    monkeypatch.setattr(manifest, "probe", broken)
    (folder / "m.csv").write_text(f"{HEADER}\na.png,v.mp4,x,y\nnone.png,v.mp4,x,y\n")
    problems = check_manifest(str(folder / "m.csv"), deep=True)[1]
    assert [problem.row for problem in problems] == [2, 3, 3]
    assert type(error).__name__ in problems[0].text
    assert f"{folder}/v.mp4" in problems[0].text


def test_whatever_a_row_s_cells_raise_is_its_problem(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(profile: str, overrides: list[str]) -> Any:
        if "seed=3" in overrides:
            raise OverflowError("too large")
        return load_settings(profile, overrides)

    monkeypatch.setattr(manifest, "load_settings", odd)
    (folder / "m.csv").write_text(f"{HEADER},overrides\na.png,v.mp4,x,y,seed=3\na.png,v.mp4,x,y,seed=4\n")
    found, problems = check_manifest(str(folder / "m.csv"))
    assert [row.number for row in found.rows] == [3]
    assert "OverflowError: too large" in problems[0].text


def test_what_is_no_regular_file_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    places = [str(tmp_path / "pipe"), "/dev/zero", "file:///dev/zero", "file://file:///dev/zero"]
    problems = [inspect_files([place])[place].problem for place in places]
    assert problems[:3] == [
        "is a pipe; give the path of a regular file",
        "is a device; give the path of a regular file",
        "is a device; give the path of a regular file",
    ]
    assert "does not exist" in problems[3]


def test_a_file_beyond_its_limit_is_not_opened(folder: Path) -> None:
    limited(picture_bytes=10, video_bytes=5)
    (folder / "m.csv").write_text(f"{HEADER}\na.png,v.mp4,x,y\n")
    problems = check_manifest(str(folder / "m.csv"))[1]
    assert ["picture_bytes" in problems[0].text, "video_bytes" in problems[1].text] == [True, True]
    with pytest.raises(InputError, match=r"limits\.picture_bytes"):
        gather_facts(str(folder / "a.png"), "image")


# Profiles


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "# x\n" * 300_000,
            "holds 1,200,000 bytes, more than the 1,048,576 that limits.settings_bytes allows",
        ),
        ("seed: " + "9" * 100_000, "setting seed: got '9999"),
        ("seed: 0x" + "f" * 100_000, "setting seed: got '0xfff"),
        ("seed: 1" + ":59" * 100_000, "setting seed: got '1:59"),
        ("seed: 1" + ":59" * 100_000 + ".5", "setting seed: got '1:59"),
        ('seed: !!int "1' + ":59" * 100_000 + '"', "tags (!name) are not read"),
        ("seed: 2001-99-99", "is not valid YAML: month must be in 1..12"),
        ("seed: 2001-09-09", "setting seed"),
        ("seed: " + "[" * 5_000, "is nested too deeply"),
        ("seed: 1\n---\nseed: 2", "another document (line 2)"),
        ("extends: [embedded]", "'extends:' takes a profile's name"),
        ("extends: 5", "'extends:' takes a profile's name"),
        ("seed: \0", "is not valid YAML: unacceptable character"),
        ("? [a]\n: b", "unhashable key"),
    ],
)
def test_yaml_that_costs_more_than_it_says_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        load_settings(tmp_path / "p.yaml")
    assert len(str(caught.value)) < 600


def test_a_profile_is_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.yaml")
    with pytest.raises(ValueError, match="is a pipe"):
        load_settings(tmp_path / "p.yaml")
    with pytest.raises(ValueError, match="there is no profile"):
        load_settings("a\0.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="is a device"):
        load_settings(tmp_path / "zero.yaml")


def test_a_chain_of_profiles_ends(tmp_path: Path) -> None:
    for i in range(200):
        (tmp_path / f"p{i}.yaml").write_text(f"extends: {tmp_path}/p{i + 1}.yaml\n")
    with pytest.raises(ValueError, match="of a chain of 'extends:'; 8 are allowed"):
        load_settings(tmp_path / "p0.yaml")


@pytest.mark.parametrize(
    "text", ["users: [{token: word1}]", "password: word1\n x: [: word1", "word1", "? word1"]
)
def test_what_stands_in_a_file_that_is_no_profile_is_not_shown(folder: Path, text: str) -> None:
    (folder / "secret.yaml").write_text(text)
    (folder / "more.yaml").write_text("extends: " + str(folder / "secret.yaml"))
    rows = [f"{name}.yaml,a.png,v.mp4,x,y" for name in ("secret", "more")]
    (folder / "m.csv").write_text("\n".join([f"profile,{HEADER}", *rows]))
    problems = check_manifest(str(folder / "m.csv"))[1]
    assert [problem.row for problem in problems if "profile" in problem.text] == [2, 3]
    assert not any("word1" in problem.text or "users" in problem.text for problem in problems)


# Servers

Reply = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(reply: Reply, allowed: bool = True) -> Iterator[str]:
    """Answer every request by ``reply``, which writes whatever it wants; yields the server's URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            with suppress(OSError):  # the client left
                reply(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    if allowed:
        use_private_hosts([f"127.0.0.1:{server.server_port}"])
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(request: BaseHTTPRequestHandler, *headers: str, body: Iterator[bytes] | bytes = b"") -> None:
    """Write a status line, headers and a body, of which HEAD has none."""
    lines = ["HTTP/1.1 200 OK", "Connection: close", *headers, "", ""]
    request.wfile.write("\r\n".join(lines).encode())
    if request.command == "GET":
        for piece in [body] if isinstance(body, bytes) else body:
            request.wfile.write(piece)


def chunked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield f"{len(piece):x}\r\n".encode() + piece + b"\r\n"


def endless(request: BaseHTTPRequestHandler) -> None:
    answer(request, "Transfer-Encoding: chunked", body=chunked(repeat(b"x" * 65536)))


def endless_until_closed(request: BaseHTTPRequestHandler) -> None:
    answer(request, body=repeat(b"x" * 65536))


def announces_terabytes(request: BaseHTTPRequestHandler) -> None:
    answer(request, f"Content-Length: {1 << 40}", body=repeat(b"x" * 65536))


def expands(request: BaseHTTPRequestHandler) -> None:
    packed = gzip.compress(b"x" * 20_000_000, 1)
    answer(request, "Content-Encoding: gzip", f"Content-Length: {len(packed)}", body=packed)


def small_head_large_body(request: BaseHTTPRequestHandler) -> None:
    if request.command == "HEAD":
        answer(request, "Content-Length: 10")
    else:
        endless(request)


@pytest.mark.parametrize(
    "reply", [endless, endless_until_closed, announces_terabytes, expands, small_head_large_body]
)
def test_a_body_is_not_fetched_beyond_its_limit(tmp_path: Path, reply: Reply) -> None:
    limited(table_bytes=1_000_000, picture_bytes=1_000_000)
    with serving(reply) as url:
        with pytest.raises(InputError, match=r"limits\.table_bytes"):
            read_bytes(f"{url}/m.csv", "manifest")
        with pytest.raises(InputError, match=r"limits\.picture_bytes"):
            local_copy(f"{url}/a.png", tmp_path / "copies", limit="picture_bytes")
    assert not [path for path in (tmp_path / "copies").rglob("*") if path.suffix in (".part", ".png")]


def test_a_body_shorter_than_announced_is_no_file(tmp_path: Path) -> None:
    def cut(request: BaseHTTPRequestHandler) -> None:
        answer(request, "Content-Length: 1000", body=b"x" * 10)

    with serving(cut) as url:
        with pytest.raises(InputError, match="cannot be reached"):
            read_bytes(f"{url}/m.csv", "manifest")
        with pytest.raises(ConnectionError, match="not completed"):
            local_copy(f"{url}/a.png", tmp_path / "copies")
    assert not list((tmp_path / "copies").rglob("*.part"))


def test_a_server_that_hardly_sends_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "SILENCE_S", 0.2)

    def drips(request: BaseHTTPRequestHandler) -> None:
        answer(request, "Content-Length: 100000", body=slowly())

    def slowly() -> Iterator[bytes]:
        for _ in range(200):
            threading.Event().wait(0.05)
            yield b"x"

    with serving(drips) as url, pytest.raises(InputError, match="comes too slowly: "):
        local_copy(f"{url}/a.png", tmp_path / "copies")
    assert not list((tmp_path / "copies").rglob("*.part"))


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "FILE:///etc/passwd", "data:text/plain,x"]
)
def test_a_redirect_leads_to_web_servers_alone(tmp_path: Path, target: str) -> None:
    def leads(request: BaseHTTPRequestHandler) -> None:
        lines = [
            "HTTP/1.1 302 Found",
            "Connection: close",
            f"Location: {target}",
            "Content-Length: 0",
            "",
            "",
        ]
        request.wfile.write("\r\n".join(lines).encode())

    with serving(leads) as url:
        with pytest.raises(InputError):
            read_bytes(f"{url}/m.csv", "manifest")
        with pytest.raises((InputError, OSError)):
            local_copy(f"{url}/a.png", tmp_path / "copies")


# Addresses


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "::1",
     "::", "fe80::1", "fd00::1", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "2002:7f00:1::", "100.64.0.1",
     "224.0.0.1", "255.255.255.255"],
)  # fmt: skip
def test_addresses_of_this_machine_and_its_network_are_refused(address: str) -> None:
    with pytest.raises(PrivateAddressError, match=r"runner\.private_hosts"):
        refuse_private(address, 80)
    use_private_hosts(["*"])
    refuse_private(address, 80)


def test_public_addresses_and_named_hosts_are_reached() -> None:
    refuse_private("8.8.8.8", 80)
    refuse_private("2606:4700:4700::1111", 443)
    for host in ("localhost", "localhost:80", "127.0.0.1:80"):
        use_private_hosts([host])
        refuse_private("127.0.0.1", 80)
    use_private_hosts(["localhost:81", "no.such.host.invalid", "[::"])
    with pytest.raises(PrivateAddressError):
        refuse_private("127.0.0.1", 80)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "127.0.0.1.", "0"]
)
def test_a_manifest_reaches_no_service_of_this_machine(folder: Path, host: str) -> None:
    with website(allowed=False) as site:
        site.files = {"/a.png": (folder / "a.png").read_bytes(), "/v.mp4": b"x"}
        port = site.address.rpartition(":")[2]
        (folder / "m.csv").write_text(
            f"{HEADER}\nhttp://{host}:{port}/a.png,http://{host}:{port}/v.mp4,x,y\n"
        )
        for deep in (False, True):
            problems = check_manifest(str(folder / "m.csv"), deep=deep)[1]
            assert [problem.row for problem in problems] == [2, 2]
        assert site.asked == []
    if host in ("127.0.0.1", "localhost"):
        assert "an address of this machine or its network" in problems[0].text
        assert "--set 'runner.private_hosts=" in problems[0].text


def test_a_redirect_reaches_no_service_of_this_machine(tmp_path: Path) -> None:
    with website(allowed=False) as site:
        site.files["/m.csv"] = b"secret"
        target = f"http://{site.address}/m.csv"

        def leads(request: BaseHTTPRequestHandler) -> None:
            lines = [
                "HTTP/1.1 307 x",
                "Connection: close",
                f"Location: {target}",
                "Content-Length: 0",
                "",
                "",
            ]
            request.wfile.write("\r\n".join(lines).encode())

        with serving(leads) as url:
            for read in (lambda: read_bytes(f"{url}/m.csv", "m"), lambda: local_copy(f"{url}/m", tmp_path)):
                with pytest.raises(InputError, match="an address of this machine or its network"):
                    read()
        assert site.asked == []


def test_a_manifest_s_own_host_is_allowed_where_a_command_was_given_it() -> None:
    assert allowing_hosts_of(["m.csv", "s3://bucket/m.csv"], "embedded", ["seed=1"]) == ["seed=1"]
    given = ["seed=1", "runner.private_hosts=[mine]"]
    changes = allowing_hosts_of(["http://u:p@intranet:8080/m.csv", "https://[::1]/v"], "embedded", given)
    assert changes[:2] == given
    assert load_settings("embedded", changes).runner.private_hosts == ("mine", "intranet:8080", "[::1]:443")
    assert [host_of(place) for place in ("http://[x", "http://h:x/", "file:///a", "http:///a")] == [""] * 4


def test_other_connections_of_this_process_are_not_concerned() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()


# Schemes


def test_no_other_scheme_of_fsspec_is_read() -> None:
    for name in {*known_implementations, *registry} - {*SCHEMES}:
        assert place_problem(f"{name}://a/b"), name
    for name in SCHEMES:
        assert place_problem(f"{name.upper()}://a/b"), name


def test_a_url_of_a_file_is_always_local() -> None:
    assert local_path("file:///a://b") == Path("/a:/b")
    assert local_path("file://http://host/a") is not None
    assert local_path("file:/x") == Path("file:/x").absolute()
