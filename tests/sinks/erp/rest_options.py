"""Options of the generic adapter for each kind of test ERP; the three vendors' are the shipped examples."""

from pathlib import Path
from typing import Any, Final

import yaml

from config.erp_rest import RestOptions

EXAMPLES: Final = Path(__file__).resolve().parents[3] / "config" / "examples"
SHIPPED: Final = ("netsuite", "xero", "quickbooks")

_RULES: Final[list[dict[str, Any]]] = [
    {"text": "period", "outcome": "rejected", "reason": "closed_period"},
    {"text": "Invalid account", "outcome": "rejected", "reason": "unknown_account"},
    {"text": "Invalid customer", "outcome": "rejected", "reason": "unknown_customer"},
    {"text": "balance", "outcome": "rejected", "reason": "unbalanced"},
    {"text": "dimension", "outcome": "rejected", "reason": "missing_dimension"},
]
_BALANCES: Final[dict[str, Any]] = {
    "path": "/balances", "items": "result", "account": "account", "currency": "currency", "balance": "balance",
}  # fmt: skip
_PLAIN: Final[dict[str, Any]] = {
    "auth": {"kind": "bearer", "credential": {"environment": "NOT_USED"}},
    "idempotency": {"kind": "search_only", "settle_window_s": 120, "settle_lookups": 3},
    "submit": {
        "path": "/entries",
        "body": {
            "ref": "{key}",
            "digest": "{digest}",
            "day": "{booked_day}",
            "date": "{posting_date}",
            "currency": "{currency}",
            "kind": "{kind}",
            "state": "{state}",
            "lines": "{lines}",
        },
        "line": {
            "account": "{account}",
            "amount": "{signed}",
            "customer": "{party}",
            "text": "{dimension.charge}",
        },
    },
    "outcomes": [{"status": [200], "has": "result.id", "outcome": "posted", "number": "result.id"}, *_RULES],
    "lookup": {"path": "/entries", "query": {"ref": "{key}"}, "items": "result"},
    "read_back": {
        "path": "/entries",
        "query": {"first": "{first}", "last": "{last}", "offset": "{offset}", "limit": "{limit}"},
        "items": "result",
    },
    "entry": {
        "key": "key", "number": "id", "digest": "digest", "currency": "currency", "date": "date", "day": "day",
        "lines": "lines", "account": "account", "amount": "amount",
        "state": "state", "changed_by": "changed_by", "changed_at": "changed_at",
    },
    "balances": _BALANCES,
    "customer_balances": _BALANCES | {"query": {"until": "{until}"}, "customer": "customer"},
}  # fmt: skip
_JOBS: Final[dict[str, Any]] = _PLAIN | {
    "entry": {name: value for name, value in _PLAIN["entry"].items() if name != "state"},
    "idempotency": {"kind": "async_job", "settle_window_s": 120, "settle_lookups": 3},
    "outcomes": [{"status": [202], "has": "job", "outcome": "accepted", "job": "job"}],
    "poll": {"path": "/jobs/{job}"},
    "poll_outcomes": [
        {"has": "number", "outcome": "posted", "number": "number"},
        {"text": '"running"', "outcome": "accepted"},
        *_RULES,
    ],
}


def options(kind: str, url: str, token_file: Path, **changes: Any) -> RestOptions:
    """Return the options of a kind, pointed at a server of this machine."""
    if kind in SHIPPED:
        plain: dict[str, Any] = yaml.safe_load((EXAMPLES / f"erp_{kind}.yaml").read_text())
    else:
        plain = {"plain": _PLAIN, "jobs": _JOBS}[kind].copy()
    auth = {"kind": "bearer", "credential": {"file": str(token_file)}}
    merged = plain | {"url": url, "auth": auth, "timeout_s": 2.0, "rate_per_s": 0} | changes
    if page := merged.pop("page_size", None):
        merged["read_back"] = {**merged["read_back"], "page_size": page}
    return RestOptions.model_validate(merged)
