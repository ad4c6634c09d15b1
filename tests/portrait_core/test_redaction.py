"""Secrets in text, in every writing; and text that neither a terminal nor Markdown obeys."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from portrait_core.errors import InputError, ModelFileError, StoreError
from portrait_core.pipeline.classification import make_failure
from portrait_core.settings import load_settings
from portrait_core.store import Failure
from portrait_core.store.places import checked_place, is_redacted, kept_place, place_name, redact_place
from portrait_core.text import redaction
from portrait_core.text.markdown import escape_markdown
from portrait_core.text.redaction import holds_secrets, redact_text, redact_values, remember_options
from portrait_core.text.visible import shown, shown_lines

STEERING = "\x1b]52;c;QQ==\x07\x9b31m\x7f\r\x00\u202e\u2066\u200b\u2028\u2029\ud800\ufeff"
"""Sequences of a terminal, directions of writing, what has no width, separators, half a character."""


@pytest.fixture(autouse=True)
def _forgetful() -> Iterator[None]:
    """Let no test know the secrets of another by heart."""
    redaction._known.clear()
    yield
    redaction._known.clear()


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("https://me:CANARY@host/a.png", "https://***@host/a.png"),
        ("https://CANARY@host/a.png", "https://***@host/a.png"),
        ("https://me:@host/a", "https://***@host/a"),
        ("https://me:CAN%40AR%2FY@host/a", "https://***@host/a"),
        ("https://me:CAN@ARY@host/a", "https://***@host/a"),
        ("https://me:CAN/ARY@host/a", "https://***@host/a"),
        ("https://me:/CANARY@host/a", "https://***@host/a"),
        ("https://me:CAN?ARY@host/a?b=CANARY", "https://***@host/a?***"),
        ("https://me:CAN#ARY@host/a", "https://***@host/a"),
        ("S3://AKIAIOSFODNN7EXAMPLE:CAN/A+RY@bucket/x", "S3://***@bucket/x"),
        ("HTTPS://HOST/A?X-Amz-Signature=CANARY", "HTTPS://HOST/A?***"),
        ("https://host/a?sv=1&sig=CANARY%3D", "https://host/a?***"),
        ("https://host/a#access_token=CANARY&x=1", "https://host/a#***"),
        ("tls://me:CANARY@10.0.0.1:8786", "tls://***@10.0.0.1:8786"),
        ("postgresql+asyncpg://me:CANARY@host:5432/db", "postgresql+asyncpg://***@host:5432/db"),
        (
            '{"a": "https:\\/\\/me:CANARY@h\\/a?sig=CANARY", "b": 1}',
            '{"a": "https:\\/\\/***@h\\/a?***", "b": 1}',
        ),
        ("https%3A%2F%2Fme%3ACANARY%40h%2Fa%3Fs%3DCANARY", "https%3A%2F%2F***%40h%2Fa%3F***"),
        ("https%253a%252f%252fme%253aCANARY%2540h", "https%253a%252f%252f***%2540h"),
        (
            "http://h/get/https%3A%2F%2Fme%3ACANARY%40h%3Fs%3DCANARY",
            "http://h/get/https%3A%2F%2F***%40h%3F***",
        ),
        ("http://proxy/https://me:CANARY@host/a", "http://proxy/https://***@host/a"),
        ("simplecache::https://me:CANARY@host/a", "simplecache::https://***@host/a"),
        ("{'a': 'https://h/a?sig=CANARY', 'b': ['x']}", "{'a': 'https://h/a?***', 'b': ['x']}"),
        ("see (https://h/a?sig=CANARY), and", "see (https://h/a?***), and"),
        ("url=https://h/a?sig=CAN'ARY end", "url=https://h/a?*** end"),
        ("Authorization: Basic Q0FOQVJZ", "Authorization: ***"),
        ("{'Authorization': 'Bearer CANARY.CANARY1'}", "{'Authorization': '***'}"),
        ("headers [(b'authorization', b'Basic Q0FOQVJZ')]", "headers [(b'authorization', '***')]"),
        ("Cookie: a=CANARY; b=CANARY", "Cookie: ***"),
        ("AWS_SECRET_ACCESS_KEY=CANARY x", "AWS_SECRET_ACCESS_KEY=*** x"),
        ("PREFECT_API_AUTH_STRING='admin:CANARY'", "PREFECT_API_AUTH_STRING='***'"),
        ("AccountName=x;AccountKey=CANARY==;End=y", "AccountName=x;AccountKey=***;End=y"),
        ("{'key': 'AKIAIOSFODNN7EXAMPLE', 'secret': 'CANARY'}", "{'key': '***', 'secret': '***'}"),
        ('said {\\"token\\": \\"CANARY\\"}', 'said {\\"token\\": \\"***\\"}'),
        ("storage: {secret: CANARY}", "storage: {secret: ***}"),
    ],
)
def test_secrets_are_found_in_every_writing(text: str, means: str) -> None:
    assert redact_text(text) == means
    assert redact_text(means) == means, "what is redacted stays as it is"
    assert holds_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "/data/a?b@c.png",
        "file:///data/a?b@c.png",
        "s3://bucket/me@home/a.png",
        "https://host/id1#video#0001.mp4",
        "http://localhost:9000/@me/a.png",
        "http://[::1]:9000/@me/a.png",
        "abfs://container@account.dfs.core.windows.net/a",
        "C:\\faces\\a.png",
        "the key 00aa11 of the stage fit; 3 tokens, basic authentication, secret.png",
        "row 3: the portrait does not exist; check the path",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact_text(text) == text
    assert not holds_secrets(text)


def test_a_harmless_query_is_hidden_but_no_secret() -> None:
    assert redact_text("https://host/load?id=42&name=a.png") == "https://host/load?***"
    assert not holds_secrets("https://host/load?id=42&name=a.png")
    for query in ("code=CANARY", "x=0123456789abcdef", "0123456789abcdef", "id=1&X-Amz-Signature=CANARY"):
        assert holds_secrets(f"https://host/load?{query}")


def test_records_keep_harmless_queries_and_no_secret_ones() -> None:
    harmless = "https://host/load?id=42&name=a.png"
    assert kept_place(harmless) == harmless
    assert redact_values({"a": [harmless]}, harmless=False) == {"a": [harmless]}
    assert redact_values([harmless]) == ["https://host/load?***"]
    for secret in (f"{harmless}&sig=CANARY", "https://me:CANARY@host/a?id=42", "s3://CANARY@bucket/a.png"):
        assert is_redacted(kept_place(secret))
        assert "CANARY" not in str(redact_values([secret], harmless=False))


def test_values_are_redacted_at_every_depth() -> None:
    value = {"a": ["https://u:CANARY@h", 1, None], "https://h/?sig=CANARY": {"b": ("x", "tls://CANARY@h")}}
    assert "CANARY" not in str(redact_values(value))
    assert redact_values(value)["a"][1:] == [1, None]


def test_a_long_hostile_text_is_redacted_in_time_that_grows_with_its_length() -> None:
    for part in ("a://", "token", "%25", "https://a:", "@", "x://@", "basic ", 'secret="', "://?#=", "'"):
        begin = time.process_time()
        redact_text(part * 1_000)
        short = time.process_time() - begin
        begin = time.process_time()
        redact_text(part * 10_000)
        assert time.process_time() - begin < 30 * short + 0.5, part


def test_secrets_of_this_process_are_hidden_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:CANARYPASS")
    monkeypatch.setenv("SOME_TOKEN", "CANARY/TOKEN")
    remember_options({"secret": "CANARY+OPTION", "client_kwargs": {"endpoint_url": "http://minio:9000"}})
    checked_place("s3://key:CANARYWORD@bucket/x?versionId=12345678")
    said = (
        "CANARYPASS, Basic YWRtaW46Q0FOQVJZUEFTUw==, YWRtaW46Q0FOQVJZUEFTUw==, "
        "CANARY%2FTOKEN, CANARY%2BOPTION, "
        'Invalid bucket name "key:CANARYWORD@bucket" at http://minio:9000 of version 12345678'
    )
    assert "CANARY" not in redact_text(said)
    assert "YWRtaW46" not in redact_text(said)
    assert "at http://minio:9000 of version 12345678" in redact_text(said)


def test_names_of_files_hold_no_part_of_a_url_that_is_secret() -> None:
    assert place_name("https://me:CANARY@host") == "host"
    assert place_name("https://host/a/b.png?token=CANARY") == "b.png"
    assert place_name("https://host/a/b.png#access_token=CANARY") == "b.png"
    assert place_name("https://me:CAN/ARY@host/b.png") == "b.png"
    assert place_name("/data/a b.png") == "a b.png"


def test_a_redacted_place_is_not_opened() -> None:
    place = redact_place("https://me:CANARY@host/a.png?sig=CANARY")
    assert is_redacted(place)
    assert not is_redacted("/data/***@a.png")
    with pytest.raises(InputError, match="give the command with the whole URL again"):
        checked_place(place)


def test_errors_and_rows_of_failures_cannot_hold_a_secret() -> None:
    url = "https://me:CANARY@host/a?sig=CANARY"
    errors = [InputError(f"{url} is no picture"), ModelFileError(url), StoreError(url, f"{url} fails")]
    for error in errors:
        assert "CANARY" not in str(error)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    rows = [
        Failure("fit", 0, "poison", f"{url}!"),
        make_failure("fit", 0, OSError("x" * 480 + f" {url}"), "00aa"),
    ]
    assert "CANARY" not in str(rows)


@pytest.mark.parametrize(
    "change",
    [
        "runner.storage_options={key: CANARY, secret: CANARY",
        "runner.storage_options=CANARY",
        "runner.storage_options: {secret: CANARY}",
        "runner.storage_options.secret CANARY",
        "runner={storage_options: {secret: CANARY",
        "runner=storage_options CANARY",
        "runner.address=tls://me:CANARY@host:8786",
        "runner.cluster={env: {A: CANARY}, preload: CANARY}",
        "generator.weights.x=https://me:CANARY@host",
        "tuning.steps=https://host/?sig=CANARY",
    ],
)
def test_no_error_of_a_setting_shows_credentials(change: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as refused:
        load_settings("embedded", ["runner.kind=slurm", change] if "cluster" in change else [change])
    assert "CANARY" not in str(refused.value)


def test_an_error_of_a_profile_s_yaml_shows_none_of_its_lines(tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text("runner:\n  storage_options: {secret: CANARY, key: [}\n")
    with pytest.raises(ValueError, match="line 2") as refused:
        load_settings(profile)
    assert "CANARY" not in str(refused.value)


# Characters


def test_no_control_character_is_shown_and_every_writing_is() -> None:
    said = shown(f"写真 é 🙂 a\tb\nc{STEERING}")
    assert said.isprintable()
    assert said.startswith(
        "写真 é 🙂 a\\tb\\nc\\x1b]52;c;QQ==\\x07\\x9b31m\\x7f\\r\\x00\\u202e\\u2066\\u200b"
    )


def test_only_the_program_s_own_lines_begin_at_the_margin() -> None:
    assert shown_lines("wrong\nInvalid input: x\r\n\x1b[2J\n") == "wrong\n  Invalid input: x\\r\n  \\x1b[2J"


def test_logs_warnings_and_tracebacks_are_clean() -> None:
    code = """
import logging, sys, warnings
from portrait_core.text.process_output import guard_output
guard_output(); guard_output()
text = "\\x1b]52;c;QQ==\\x07 https://me:CANARY@host/?sig=CANARY\\nERROR of ours"
logging.getLogger("a").warning("%s", text)
try:
    raise ValueError(text)
except ValueError:
    logging.getLogger("b").exception("it failed")
warnings.warn(text)
import threading
def run(): raise ValueError(text)
thread = threading.Thread(target=run); thread.start(); thread.join()
raise RuntimeError(text)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("Traceback") == 3
    assert ended.stderr.count("ERROR of ours") == 5
    assert not [line for line in ended.stderr.splitlines() if line.startswith("ERROR of ours")]
    assert "CANARY" not in ended.stderr
    assert ended.stderr.replace("\n", "").isprintable()


def test_markdown_shows_data_as_it_is() -> None:
    hostile = (
        "a|b `c` <script>x</script> [x](javascript:alert(1)) ![](http://evil/x.png) *b* _c_ &#x202e; \\|\nd"
    )
    said = escape_markdown(hostile)
    markdown = MarkdownIt("commonmark").enable("table")
    table = f"| a | b |\n|---|---|\n| {said} | 1 |\n\n- {said}\n"
    html = markdown.render(table)
    assert html.count("<td>") == 2
    for tag in ("<script", "<a ", "<img", "<em>", "<strong>", "<code>", "\u202e"):
        assert tag not in html
    assert "[x](javascript:alert(1)) ![](http://evil/x.png) *b* _c_ &amp;#x202e; \\|\\nd" in html
    assert escape_markdown("without_tuning, APD (deca) ↓") == "without_tuning, APD (deca) ↓"
    for start in ("1. x", "- x", "# x", "> x", "+ x"):
        assert markdown.render(escape_markdown(start)).startswith("<p>")
