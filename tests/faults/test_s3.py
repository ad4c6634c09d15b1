"""A store on S3 that is too busy for some requests, or does not answer for a while."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest

from tests.faults.conftest import MakeBench, Whole
from tests.faults.content import different
from tests.faults.events import done_again
from tests.faults.runs import DONE, Bench, Run
from tests.faults.servers import HOST, free_port, s3_control, s3_failures, s3_server
from tests.faults.table import add_row, committed_count

pytest.importorskip("moto", reason="needs the development dependencies (moto)")
boto3 = pytest.importorskip("boto3", reason="needs the development dependencies (boto3)")
STORE, BUSY_SHARE, ASLEEP_S = "s3://bucket/run", 0.1, 20
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def _on_s3(bench: MakeBench, share: float) -> tuple[Bench, Run, dict[str, Any]]:
    """A bench whose store is a bucket, the server, and options to read the bucket with."""
    port = free_port()
    endpoint = f"http://{HOST}:{port}"
    clip = bench(store=STORE, AWS_ENDPOINT_URL=endpoint, **KEYS)
    server = s3_server(clip, port, 0.0)
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="bucket")
    s3_control(clip).write_text(json.dumps(share))
    return clip, server, {"endpoint_url": endpoint, "key": "test", "secret": "test"}


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_busy_server(bench: MakeBench, undisturbed: Whole) -> None:
    clip, _, options = _on_s3(bench, BUSY_SHARE)
    run = clip.start(warm=False)
    code, failed, before = run.wait(900), s3_failures(clip), committed_count(clip)
    if code != DONE:
        clip.finish(10, warm=False)
    s3_control(clip).write_text("0")
    wrong = different(STORE, undisturbed().content, options)
    where = f"{BUSY_SHARE:.0%} of S3 requests"
    add_row(clip, "503 SlowDown", where, failed, before, wrong, run)
    assert failed > 0
    assert wrong == []
    assert clip.is_finished
    assert code == DONE, run.output[-3000:]
    assert done_again(clip.events) == {}


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_a_server_that_sleeps(bench: MakeBench, undisturbed: Whole) -> None:
    clip, server, options = _on_s3(bench, 0.0)
    run = clip.start(warm=False)
    assert run.watch(lambda: clip.reached("inversion")), run.output
    before = committed_count(clip)
    server.send(signal.SIGSTOP)
    time.sleep(ASLEEP_S)
    server.send(signal.SIGCONT)
    code = run.wait(900)
    if code != DONE:
        clip.finish(3, warm=False)
    wrong = different(STORE, undisturbed().content, options)
    add_row(clip, "S3 server stopped", f"inversion, for {ASLEEP_S} s", 1, before, wrong, run)
    assert wrong == []
    assert clip.is_finished
    assert code == DONE, run.output[-3000:]
    assert done_again(clip.events) == {}
