"""Puts decided events in order: every column is gathered once, from where it was decoded to its shard's place.

Columns are decoded where it is cheap (all attributes at once, the meters' columns type by type, doubtful events one
by one) and stay where they are until it is known which events are accepted and where they go.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.decode_lines import Lines

ROW = "row"

Places = npt.NDArray[np.int64]
Schema = dict[str, "pl.DataType | type[pl.DataType]"]


@dataclass(frozen=True, slots=True)
class Part:
    """The meters' columns of some events. `rows` as in Decoded."""

    frame: pl.DataFrame
    rows: Places


@dataclass(frozen=True, slots=True)
class Decoded:
    """Events in any order. `base` has the columns that all events have.

    `rows`: the line of each; the number of lines, which is none of them, where the event is left out.
    """

    base: pl.DataFrame
    rows: Places
    parts: list[Part]


ATTRIBUTES: Schema = {
    "source": pl.String,
    "id": pl.String,
    "type": pl.String,
    "tenant": pl.String,
    "event_time_us": pl.Int64,
    "usage_time_us": pl.Int64,
    "identity_hi": pl.UInt64,
    "identity_lo": pl.UInt64,
    "content": pl.UInt64,
    "void_content": pl.UInt64,
    "sign": pl.Int8,
}
"""The columns of `base`."""


def joined(columns: list[Decoded], slow: pl.DataFrame | None, schema: Schema) -> Decoded:
    """Return events decoded in columns and events decoded one by one (with a column `row`) as one."""
    if slow is None and len(columns) == 1:
        return columns[0]
    frames: dict[tuple[str, ...], list[Part]] = {}
    for decoded in columns:
        for part in decoded.parts:
            frames.setdefault(tuple(part.frame.columns), []).append(part)
    base = [pl.DataFrame(schema=ATTRIBUTES), *(decoded.base.select(list(ATTRIBUTES)) for decoded in columns)]
    rows = [np.zeros(0, np.int64), *(decoded.rows for decoded in columns)]
    if slow is not None:
        own = slow.get_column(ROW).to_numpy()
        base.append(slow.select(list(ATTRIBUTES)))
        rows.append(own)
        meters = slow.select(name for name in schema if name in slow.columns and name not in ATTRIBUTES)
        for names, parts in frames.items():
            parts.append(Part(meters.select(names), own))
            meters = meters.drop(names)
        if meters.width:
            frames[tuple(meters.columns)] = [Part(meters, own)]
    whole = [
        Part(pl.concat([part.frame for part in parts]), np.concatenate([part.rows for part in parts]))
        for parts in frames.values()
    ]
    return Decoded(pl.concat(base), np.concatenate(rows), whole)


def shard_order(decoded: Decoded, lines: int, shards: int) -> tuple[Places, Places]:
    """Return the lines of the accepted events, shard by shard and in order within each, and the shards' ends."""
    place = np.full(lines + 1, -1, dtype=np.int64)
    place[decoded.rows] = np.arange(len(decoded.rows))
    rows = np.flatnonzero(place[:-1] >= 0)
    identity = decoded.base.get_column("identity_lo").to_numpy()
    shard = (identity[place[rows]] % np.uint64(shards)).astype(np.uint8)
    ends = np.cumsum(np.bincount(shard, minlength=shards))
    return rows[np.argsort(shard, kind="stable")], ends


def assemble(decoded: Decoded, lines: Lines, rows: Places, schema: Schema) -> pl.DataFrame:
    """Return the events of those lines in that order, with all columns of the schema."""
    columns: dict[str, pl.Series] = {
        "entry_ms": pl.Series(lines.entry_ms[rows], dtype=pl.Int64),
        "stream": pl.Series(lines.stream[rows], dtype=pl.UInt16),
        "entry_seq": pl.Series(lines.entry_seq[rows], dtype=pl.Int64),
        "entry_index": pl.Series(lines.entry_index[rows], dtype=pl.Int32),
        # Lines that are not accepted may be no text, so the type changes behind the gathering.
        "raw": lines.column().gather(rows).cast(pl.String),
    }
    for part in (Part(decoded.base, decoded.rows), *decoded.parts):
        gathered = part.frame.select(pl.all().gather(_index(part.rows, rows, len(lines))))
        columns |= {series.name: series for series in gathered.get_columns()}
    missing = {
        name: pl.repeat(None, len(rows), dtype=kind, eager=True) for name, kind in schema.items() if name not in columns
    }
    columns |= missing
    return pl.DataFrame([columns[name].alias(name) for name in schema])


def _index(have: Places, wanted: Places, lines: int) -> pl.Series:
    """Return where each wanted line stands among those there are, null where it does not."""
    place = np.full(lines + 1, -1, dtype=np.int64)
    place[have] = np.arange(len(have))
    index = place[wanted]
    if not len(index) or index.min() >= 0:
        return pl.Series(index, dtype=pl.Int64)
    series = pl.Series(index)
    return pl.select(pl.when(series >= 0).then(series)).to_series()
