"""The certificates of Dask clusters that others start."""

from __future__ import annotations

import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.deployments.files import DEPLOYMENTS, run, run_python

PROGRAM = DEPLOYMENTS / "certificates.py"


def test_only_the_user_reads_them(tmp_path: Path) -> None:
    said = run_python(PROGRAM, tmp_path / "tls", "--days", 3, "--names", "gpu1", "10.0.0.3")
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "tls").iterdir()}
    assert files == {"ca.pem": 0o600, "dask.pem": 0o600, "dask-key.pem": 0o600}
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    authority, certificate = (
        x509.load_pem_x509_certificate((tmp_path / "tls" / name).read_bytes())
        for name in ("ca.pem", "dask.pem")
    )
    certificate.verify_directly_issued_by(authority)
    key = load_pem_private_key((tmp_path / "tls" / "dask-key.pem").read_bytes(), None)
    assert key.public_key() == certificate.public_key()
    end = certificate.not_valid_after_utc
    assert timedelta(days=2, hours=23) < end - datetime.now(UTC) <= timedelta(days=3)
    assert f"valid until {end:%Y-%m-%d %H:%M} UTC" in said
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "gpu1"]


def test_what_is_there_stays(tmp_path: Path) -> None:
    run_python(PROGRAM, tmp_path / "tls")
    before = {path: path.read_bytes() for path in (tmp_path / "tls").iterdir()}
    again = run(sys.executable, PROGRAM, tmp_path / "tls")
    assert (again.returncode, "exists; give another folder" in again.stderr) == (1, True)
    assert {path: path.read_bytes() for path in (tmp_path / "tls").iterdir()} == before


@pytest.mark.parametrize("wrong", [("--days", "0"), ("--names", "ä")])
def test_what_it_cannot_make_it_says(tmp_path: Path, wrong: tuple[str, ...]) -> None:
    done = run(sys.executable, PROGRAM, tmp_path / "tls", *wrong)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "tls").exists()
