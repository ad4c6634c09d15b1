"""A network file's conversion is kept under the version of the program's conversions that made it."""

from __future__ import annotations

from pathlib import Path

import pytest

from portrait_core.model_files import conversion
from tests import official_files


def test_a_conversion_is_kept_and_one_of_another_version_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    official_files.write_paper(tmp_path, official_files.QUIET)
    network = tmp_path / "ffhqrebalanced512-128.pkl"
    conversion.convert_once.cache_clear()
    made = conversion.convert_once(network)
    written = made.stat().st_mtime_ns
    conversion.convert_once.cache_clear()
    assert conversion.convert_once(network) == made
    assert made.stat().st_mtime_ns == written
    monkeypatch.setattr(conversion, "CONVERSION", conversion.CONVERSION + 1)
    conversion.convert_once.cache_clear()
    assert conversion.convert_once(network).parent != made.parent
    conversion.convert_once.cache_clear()
