"""Answers in the form the caller accepts: JSON, CSV or Parquet, with an ETag so that the same is not sent twice."""

import csv
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import msgspec
import orjson
import polars as pl
from starlette.requests import Request
from starlette.responses import Response

from console.problems import Problem
from core.frames import QUANTITY

JSON: Final = "application/json"
CSV: Final = "text/csv"
PARQUET: Final = "application/vnd.apache.parquet"
_FORMS: Final = (JSON, CSV, PARQUET)
_OPTIONS: Final = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z

Row = Mapping[str, Any]


def decimal_text(value: Decimal) -> str:
    """Return plain notation without an exponent or needless zeros."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError


def to_json(data: Any) -> bytes:
    """Return JSON: decimals as plain text, times as RFC 3339 in UTC."""
    return orjson.dumps(data, default=_plain, option=_OPTIONS)


def json_answer(request: Request, data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer; 304 if the caller has it already."""
    return _tagged(request, to_json(data), JSON, status, headers)


def rows_answer(request: Request, rows: Sequence[Row], columns: Sequence[str], following: str | None) -> Response:
    """Return a page of rows in the form that `Accept` names; the next page is `next`, and a `Link` header.

    Nested values are JSON text in CSV and Parquet.

    :raises Problem: 406 if none of the three is accepted.
    """
    headers = {"Vary": "Accept, Authorization"}
    if following is not None:
        url = request.url.include_query_params(cursor=following)
        headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
    form = _accepted(request.headers.get("accept", ""))
    if form == CSV:
        return _tagged(request, _csv(rows, columns), f"{CSV}; charset=utf-8", 200, headers)
    if form == PARQUET:
        return _tagged(request, _parquet(rows, columns), PARQUET, 200, headers)
    return json_answer(request, {"items": rows, "next": following}, 200, headers)


def report_answer(request: Request, data: Any, rows: Iterable[Row], columns: Sequence[str]) -> Response:
    """Return one thing as JSON, or its rows as CSV or Parquet, by `Accept`; the rows are made only if they are wanted.

    :raises Problem: 406 if none of the three is accepted.
    """
    if _accepted(request.headers.get("accept", "")) == JSON:
        return json_answer(request, data, headers={"Vary": "Accept, Authorization"})
    return rows_answer(request, list(rows), columns, None)


def _accepted(header: str) -> str:
    """Return the best of our forms; JSON where nothing or everything is accepted."""
    if not header.strip():
        return JSON
    best, best_weight = "", 0.0
    for part in header.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                weight = _weight(value)
        for form in _FORMS:
            if media in (form, "*/*", f"{form.partition('/')[0]}/*") and weight > best_weight:
                best, best_weight = form, weight
                break
    if not best:
        raise Problem("not_acceptable", f"this list is made as {', '.join(_FORMS)}")
    return best


def _weight(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0


def _tagged(request: Request, body: bytes, media: str, status: int, headers: Mapping[str, str] | None) -> Response:
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    shared = dict(headers or {}) | {"ETag": tag, "Cache-Control": "private, no-cache"}
    asked = request.headers.get("if-none-match", "")
    if status == 200 and any(one.strip().removeprefix("W/") in (tag, "*") for one in asked.split(",")):
        return Response(status_code=304, headers=shared)
    return Response(body, status, shared, media_type=media)


def _cell(value: Any) -> Any:
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping | list | tuple):
        return to_json(value).decode()
    return value


def _csv(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([harmless(_cell(row[name])) for name in columns] for row in rows)
    return text.getvalue().encode()


def harmless(value: Any) -> Any:
    """Keep spreadsheets from taking a customer's text for a formula; a number is none."""
    if (isinstance(value, str) and value[:1] in ("=", "+", "@", "\t", "\r", "\n")) or _is_formula(value):
        return f"'{value}"
    return value


def _is_formula(value: Any) -> bool:
    if not isinstance(value, str) or not value.startswith("-"):
        return False
    return not value[1:].replace(".", "", 1).isdigit()


def _parquet(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    series = [_series(name, [row[name] for row in rows]) for name in columns]
    target = io.BytesIO()
    pl.DataFrame(series).write_parquet(target)
    return target.getvalue()


def _series(name: str, values: list[Any]) -> pl.Series:
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, Decimal) for value in present):
        return pl.Series(name, values, dtype=QUANTITY)
    if present and isinstance(present[0], Mapping | list | tuple):
        return pl.Series(
            name, [None if value is None else to_json(value).decode() for value in values], dtype=pl.String
        )
    if present and isinstance(present[0], datetime):
        return pl.Series(name, values, dtype=pl.Datetime("us", "UTC"))
    if present and isinstance(present[0], date):
        return pl.Series(name, values, dtype=pl.Date)
    return pl.Series(name, values, strict=False) if present else pl.Series(name, values, dtype=pl.String)
