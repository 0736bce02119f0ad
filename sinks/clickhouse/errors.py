"""What an error of ClickHouse means: wait and repeat, or stop and say what to do.

A statement with an unknown outcome (a timeout, a lost connection) is repeated: every row carries its identity,
so a row that was applied already is replaced by itself.
"""

import re
from typing import Final

from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError

from config.settings import ClickHouseSettings
from core.errors import FatalError, RetryableError, Unreachable
from core.logging import without_password

RETRYABLE_CODES: Final[dict[int, str]] = {
    74: "cannot read a file",
    75: "cannot write a file",
    76: "cannot open a file",
    159: "timeout",
    160: "too slow",
    173: "out of memory",
    198: "name cannot be resolved",
    201: "quota exceeded",
    202: "too many queries at once",
    203: "no free connection",
    209: "socket timeout",
    210: "network error",
    225: "no Keeper",
    236: "aborted",
    241: "memory limit",
    242: "table is read-only for now",
    243: "disk is full",
    252: "too many parts, merges lag behind",
    279: "no replica answers",
    285: "too few live replicas",
    286: "quorum not reached",
    289: "replica lags behind its quorum",
    319: "outcome unknown",
    373: "session is locked",
    394: "cancelled",
    425: "system error",
    439: "no thread to be had",
    999: "Keeper error",
    1000: "library error",
    1001: "library error",
    1002: "unknown error",
}
"""Codes that waiting can cure, with what they mean. Every other code needs somebody to change something."""

_ADVICE: Final[dict[int, str]] = {
    16: "a column is missing: run `meterbridge migrate`",
    60: "a table is missing: run `meterbridge migrate`",
    81: "the database is missing: run `meterbridge migrate`, or check METERBRIDGE_CLICKHOUSE__DATABASE",
    164: "the user may only read: check METERBRIDGE_CLICKHOUSE__USERNAME and its profile",
    192: "check METERBRIDGE_CLICKHOUSE__USERNAME and METERBRIDGE_CLICKHOUSE__PASSWORD",
    193: "check METERBRIDGE_CLICKHOUSE__USERNAME and METERBRIDGE_CLICKHOUSE__PASSWORD",
    194: "check METERBRIDGE_CLICKHOUSE__USERNAME and METERBRIDGE_CLICKHOUSE__PASSWORD",
    497: "the user lacks a right: grant it, or check METERBRIDGE_CLICKHOUSE__USERNAME",
    516: "check METERBRIDGE_CLICKHOUSE__USERNAME and METERBRIDGE_CLICKHOUSE__PASSWORD",
}
_STATUS: Final = re.compile(r"HTTP status (\d+)")
_MESSAGE_CHARACTERS_MAX: Final = 600


def describe(error: BaseException) -> str:
    """Return the error's text in one line, cut to a readable length."""
    cause = error.__cause__ or error.__context__
    root = getattr(cause, "reason", None) or cause  # urllib3 wraps the reason in a count of retries
    text = str(root) if isinstance(error, OperationalError) and root is not None else str(error)
    line = " ".join(text.split())
    return line if len(line) <= _MESSAGE_CHARACTERS_MAX else line[:_MESSAGE_CHARACTERS_MAX] + " ..."


def is_retryable(code: int | None, status: int | None) -> bool:
    """Tell whether repeating can help, from ClickHouse's code or, where there is none, the HTTP status."""
    if code:
        return code in RETRYABLE_CODES
    return status is None or status >= 500 or status in (408, 429)


def classify(error: ClickHouseError, settings: ClickHouseSettings, subject: str) -> RetryableError | FatalError:
    """Return the error of our tree that this one is; `subject` says what was being done."""
    code: int | None = getattr(error, "code", None)
    match = _STATUS.search(str(error))
    status = int(match[1]) if match else None
    where = f"ClickHouse at {without_password(settings.url)}"
    if is_retryable(code, status):
        if code:
            return RetryableError(f"{where}, {subject}: {RETRYABLE_CODES[code]} (code {code}): {describe(error)}")
        return Unreachable(
            f"{where} does not answer, {subject}: {describe(error)}: start it (`meterbridge up` for the"
            " embedded one) or correct METERBRIDGE_CLICKHOUSE__URL"
        )
    advice = _ADVICE.get(code or 0, "this is no outage: correct the cause and start again")
    what = f"code {code}" if code else f"HTTP status {status}"
    return FatalError(f"{where}, {subject}, {what}: {describe(error)}: {advice}")
