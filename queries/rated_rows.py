"""Rated rows with their explanation: what each was made of, priced again from the journaled configuration."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from core.errors import InvalidRequest
from operators.rate_explain import RowExplanation, explain_rows
from queries.stores import Row, Stores, of_hour
from sinks.ledger import documents

CHAIN_ROWS_MAX: Final = 200_000
"""Rows of one charge and billing period that are read to know the quantity to date."""

_COLUMNS: Final = (
    "customer, contract, plan, plan_version, charge, price_row, meter, period_start, usage_hour, booked_hour,"
    " accounting_period, original_period, line_kind, quantity, events, amount, amount_before, amount_after, currency,"
    " config_version"
)
_CHAIN: Final = {
    "customer": "String",
    "contract": "String",
    "plan": "String",
    "plan_version": "UInt32",
    "charge": "String",
    "price_row": "String",
    "period_start": "DateTime64(6)",
}
_KEY: Final = (*_CHAIN, "usage_hour", "booked_hour", "accounting_period", "line_kind")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows: those that fit everything that is given."""

    customer: str
    contract: str | None = None
    charge: str | None = None
    currency: str | None = None
    accounting_period: str | None = None
    booked_hour: datetime | None = None
    usage_hour: datetime | None = None
    line_kind: str | None = None


def of_document(stores: Stores, key: str, charge: str | None = None) -> Selection:
    """Return the selection of the rows that a document was made of.

    :raises InvalidRequest: the ledger has no such document.
    """
    document = documents.load(stores.engine, key)
    if document is None:
        message = f"the ledger has no document {key!r}: keys are 16 characters A-Z2-7"
        raise InvalidRequest(message)
    return Selection(
        customer=document["customer"],
        contract=document["contract"],
        charge=charge,
        currency=document["currency"],
        accounting_period=document["accounting_period"],
        booked_hour=of_hour(document["booked_hour"]),
    )


def page(
    stores: Stores, selection: Selection, limit: int, after: tuple[Any, ...] | None = None
) -> tuple[list[Row], tuple[Any, ...] | None]:
    """Return sealed rows in order of their key from booked hour on, and where the next page begins.

    `after` is what the page before returned: the last row's booked hour in Unix seconds and a digest of its key.
    """
    condition, values = _condition(selection)
    digest = f"hex(sipHash128({', '.join(f'toString({name})' for name in _KEY)}))"
    if after is not None:
        condition += " AND (toUnixTimestamp(booked_hour), digest) > ({after_hour:UInt32}, {after_digest:String})"
        values |= {"after_hour": after[0], "after_digest": after[1]}
    rows = stores.rows(
        f"SELECT {_COLUMNS}, {digest} AS digest FROM @rated_usage_current WHERE {condition}"  # noqa: S608
        " ORDER BY booked_hour, digest LIMIT {limit:UInt32}",
        values | {"limit": limit + 1},
    )
    following = None
    if len(rows) > limit:
        last = rows[limit - 1]
        following = (int(last["booked_hour"].timestamp()), last["digest"])
    for row in rows:
        del row["digest"]
    return rows[:limit], following


def explained(stores: Stores, selection: Selection, limit: int) -> tuple[list[RowExplanation], int]:
    """Return the explanations of the first `limit` sealed rows selected, and how many there are in all.

    :raises InvalidRequest: a charge has more rows in its billing period than CHAIN_ROWS_MAX.
    """
    condition, values = _condition(selection)
    total = stores.rows(f"SELECT count() AS rows FROM @rated_usage_current WHERE {condition}", values)  # noqa: S608
    rows = stores.rows(
        f"SELECT {_COLUMNS} FROM @rated_usage_current WHERE {condition}"  # noqa: S608
        " ORDER BY booked_hour, contract, charge, price_row, period_start, usage_hour, line_kind LIMIT {limit:UInt32}",
        values | {"limit": limit},
    )
    keys = {tuple(row[name] for name in _KEY) for row in rows}
    revisions = {revision.version: revision for revision in stores.history.revisions}
    found = explain_rows(_chains(stores, rows), revisions.get, lambda row: tuple(row[name] for name in _KEY) in keys)
    return found, int(total[0]["rows"])


def _condition(selection: Selection) -> tuple[str, dict[str, Any]]:
    values = {name: value for name, value in asdict(selection).items() if value is not None}
    parts = [f"{name} = {{{name}:{'DateTime' if name.endswith('_hour') else 'String'}}}" for name in values]
    return " AND ".join(["status = 'sealed'", *parts]), values


def _chains(stores: Stores, rows: list[Row]) -> list[Row]:
    """Return all rows of the charges and periods of these rows, up to the booked hour of the last one."""
    last: dict[tuple[Any, ...], datetime] = {}
    for row in rows:
        identity = tuple(row[name] for name in _CHAIN)
        last[identity] = max(row["booked_hour"], last.get(identity, row["booked_hour"]))
    same = " AND ".join(f"{name} = {{{name}:{kind}}}" for name, kind in _CHAIN.items())
    result: list[Row] = []
    for identity, booked_hour in last.items():
        values = dict(zip(_CHAIN, identity, strict=True)) | {"last": booked_hour, "limit": CHAIN_ROWS_MAX + 1}
        found = stores.rows(
            f"SELECT {_COLUMNS} FROM @rated_usage_current WHERE status = 'sealed' AND {same}"  # noqa: S608
            " AND booked_hour <= {last:DateTime} LIMIT {limit:UInt32}",
            values,
        )
        if len(found) > CHAIN_ROWS_MAX:
            message = (
                f"charge {identity[4]} of customer {identity[0]} has more than {CHAIN_ROWS_MAX:,} rows in the billing"
                " period: explain an earlier booked hour"
            )
            raise InvalidRequest(message)
        result += found
    return result
