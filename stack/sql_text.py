"""Reads just enough SQL to serve ClickHouse's HTTP interface: inserts that carry data, and result formats.

Pure functions over text; the engine judges everything else.
"""

import re
from dataclasses import dataclass
from typing import Final

_NAME: Final = r"(?:`(?:[^`\\]|\\.)+`|\"(?:[^\"\\]|\\.)+\"|\w+)"
_INSERT: Final = re.compile(
    rf"\s*(?P<target>INSERT\s+INTO\s+(?:TABLE\s+)?{_NAME}(?:\.{_NAME})?"
    rf"(?:\s*\(\s*{_NAME}(?:\s*,\s*{_NAME})*\s*\))?)"
    r"(?P<settings>\s+SETTINGS\s+[^()]*?)?"
    r"\s+FORMAT\s+(?P<format>\w+)(?P<end>\r?\n|[ \t;]|$)".encode(),
    re.IGNORECASE,
)
_RESULT: Final = re.compile(
    r"^(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*"
    r"(SELECT|WITH|SHOW|DESCRIBE|DESC|EXISTS|EXPLAIN|VALUES|CHECK)\b",
    re.IGNORECASE | re.DOTALL,
)
_FORMAT: Final = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.IGNORECASE)

STREAMABLE: Final = frozenset({"Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow"})
"""Formats without header or footer around the whole result: pieces put together are a valid result."""


@dataclass(frozen=True, slots=True)
class Insert:
    """An `INSERT ... FORMAT name` statement whose rows follow as data."""

    target: str
    settings: str
    format: str
    data_at: int
    """Where the data begin, in bytes from the start of the statement."""

    def from_file(self, path: str) -> str:
        """Return the statement that reads the rows from that file."""
        quoted = path.replace("\\", "\\\\").replace("'", "\\'")
        return f"{self.target} FROM INFILE '{quoted}'{self.settings} FORMAT {self.format}"


def parse_insert(head: bytes) -> Insert | None:
    """Return the insert that `head` begins with, or None if it is any other statement.

    Exactly one separator behind the format's name belongs to the statement; binary data may begin with
    bytes that look like white space.
    """
    match = _INSERT.match(head)
    if match is None:
        return None
    return Insert(
        target=match["target"].decode(),
        settings=(match["settings"] or b"").decode(),
        format=match["format"].decode(),
        data_at=match.end(),
    )


def is_streamable(sql: str, shown: str | None) -> bool:
    """Tell whether the engine can hand the result out in pieces."""
    match = _RESULT.match(sql)
    return match is not None and match[1].upper() in ("SELECT", "WITH") and shown in STREAMABLE


def result_format(sql: str, default: str) -> str | None:
    """Return the format of the statement's result, or None if it has no result."""
    if not _RESULT.match(sql):
        return None
    match = _FORMAT.search(sql)
    return match[1] if match else default
