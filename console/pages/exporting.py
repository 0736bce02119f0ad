"""Rows of a page as a file: CSV or Parquet, exact, the same rows in the same order."""

import io
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import polars as pl
from starlette.requests import Request
from starlette.responses import Response

from console.answers import harmless
from console.pages import asked

FORMATS: Final = ("csv", "parquet")
_TYPES: Final = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


def wanted(request: Request) -> str:
    """Return csv or parquet if the address asks for a file, else "".

    :raises Problem: it asks for another format.
    """
    return asked.choice(request, "format", FORMATS)


def file_of(name: str, kind: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Response:
    """Return the rows as a file to save. Decimals keep all digits; in CSV, what a spreadsheet would run is quoted."""
    frame = pl.DataFrame(
        {column: [_plain(row.get(column), safe=kind == "csv") for row in rows] for column in columns},
        infer_schema_length=None,
        strict=False,
    )
    buffer = io.BytesIO()
    if kind == "csv":
        frame.write_csv(buffer)
    else:
        frame.write_parquet(buffer)
    disposition = f'attachment; filename="{name}.{kind}"'
    return Response(buffer.getvalue(), media_type=_TYPES[kind], headers={"Content-Disposition": disposition})


def _plain(value: Any, *, safe: bool) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        value = ", ".join(f"{name}={text}" for name, text in sorted(value.items()))
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    return harmless(value) if safe else value
