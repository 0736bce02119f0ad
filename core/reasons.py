"""Reason codes of rejected input and outcomes of intake (contract, design 2.2)."""

from typing import Final, Literal, get_args

Reason = Literal[
    "malformed_entry",
    "malformed_json",
    "missing_field",
    "invalid_field",
    "invalid_quantity",
    "too_large",
    "too_old",
    "future_time",
    "conflicting_duplicate",
    "unsupported_schema",
    "unmatched_void",
    "already_voided",
]
REASONS: Final[tuple[str, ...]] = get_args(Reason)

Outcome = Literal["accepted", "duplicate", "conflicting_duplicate", "rejected"]
OUTCOMES: Final[tuple[str, ...]] = get_args(Outcome)

UNMETERED: Final = "unmetered"
"""The `reason` of an accepted event whose type no meter uses."""

VOID_TYPE: Final = "meterbridge.void"
"""CloudEvent type that takes one earlier event back (design 2.4)."""

CONTROL_TYPE: Final = "meterbridge.control"
"""CloudEvent type by which a source says how much it sent in an hour. Never metered."""

RESERVED_TYPES: Final = "meterbridge."
"""How the types that are for us begin: no meter may use one."""

RAW_BYTES_MAX: Final = 64 * 1024
"""Rejected raw bytes are kept up to this length; a cut is said in the row's detail."""
