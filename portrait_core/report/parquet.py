"""Tables as Parquet files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def parquet_bytes(table: pd.DataFrame) -> bytes:
    """Return a table as the content of a Parquet file, without its index."""
    content = io.BytesIO()
    table.to_parquet(content, index=False)
    return content.getvalue()
