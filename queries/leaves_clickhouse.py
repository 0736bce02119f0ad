"""Leaves of ClickHouse's tables, made by ClickHouse in slices of booked hours: memory does not grow with the period."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from queries.leaves import Leaf
from queries.stores import Stores, of_hour
from sinks.ledger.documents import ACT_KINDS

ROWS_PER_SLICE_MAX: Final = 2_000_000
"""A slice's rows are hashed and sorted at once: some 100 bytes a row."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is sealed: one entity's accounting period. Times are Unix seconds, `ends` is the first hour behind it.

    Facts have no entity and no accounting period: those used before the period's end and booked from its beginning to
    `closed_hour` are taken, whatever the tenant.
    """

    entity: str
    period: str
    begins_s: int
    ends_s: int
    closed_hour: int

    @property
    def parameters(self) -> dict[str, Any]:
        """Return it as query parameters."""
        return {
            "entity": self.entity,
            "period": self.period,
            "begins": self.begins_s,
            "ends": self.ends_s,
            "closed": self.closed_hour * 3600,
        }


def _text(*names: str) -> str:
    """Return fields with their length before them, so that no two rows read the same."""
    return ", ".join(f"toString(length({name})), ':', toString({name})" for name in names)


def _number(*names: str) -> str:
    return ", ".join(f"toString({name}), ';'" for name in names)


def _decimal(*names: str) -> str:
    return ", ".join(f"toDecimalString({name}, 12), ';'" for name in names)


def _time(*names: str) -> str:
    return ", ".join(f"toString(toUnixTimestamp({name})), ';'" for name in names)


def _micros(name: str) -> str:
    return f"toString(toUnixTimestamp64Micro({name})), ';'"


_DIMENSIONS: Final = (
    "toString(length(dimensions)), '=', arrayStringConcat(arrayMap((k, v) -> concat(toString(length(k)), ':', k,"
    " toString(length(v)), ':', v), mapKeys(mapSort(dimensions)), mapValues(mapSort(dimensions))))"
)


@dataclass(frozen=True, slots=True)
class TablePart:
    """One table's rows of a period: which, grouped by what, and what is hashed of each."""

    name: str
    where: str
    booked: str
    owner: str
    item: str
    events: str
    total: str
    fields: tuple[str, ...]


PARTS: Final = (
    TablePart(
        "usage_facts",
        "sealed = 1 AND booked_minute >= toDateTime({begins:Int64}, 'UTC')"
        " AND booked_minute < toDateTime({closed:Int64}, 'UTC') AND usage_minute < toDateTime({ends:Int64}, 'UTC')",
        "booked_minute",
        "tenant",
        "toString(meter)",
        "events",
        "value",
        (
            _text("tenant", "meter"),
            _DIMENSIONS,
            _time("usage_minute", "booked_minute"),
            _decimal("value"),
            _micros("value_time"),
            _number("events", "version"),
        ),
    ),
    TablePart(
        "rated_usage",
        "status = 'sealed' AND entity = {entity:String} AND accounting_period = {period:String}",
        "booked_hour",
        "customer",
        "concat(contract, '/', toString(charge), ' ', toString(currency))",
        "events",
        "amount",
        (
            _text("customer", "contract", "entity", "plan"),
            _number("plan_version"),
            _text("charge", "price_row", "meter"),
            _micros("period_start"),
            _time("usage_hour", "booked_hour"),
            _text("accounting_period", "original_period", "line_kind"),
            _decimal("quantity"),
            _number("events"),
            _decimal("amount", "revenue_amount", "amount_before", "amount_after", "revenue_after"),
            _text("currency", "config_version"),
        ),
    ),
    TablePart(
        "financial_documents",
        # Documents of acts come here after the fact; they are sealed in the ledger.
        f"kind NOT IN {ACT_KINDS} AND entity = {{entity:String}} AND accounting_period = {{period:String}}",
        "booked_hour",
        "customer",
        "key",
        "0",
        "total",
        (
            _text("key", "digest", "entity", "customer", "contract", "currency"),
            _time("booked_hour"),
            _text("accounting_period", "kind"),
            _decimal("total"),
            _text("lines"),
        ),
    ),
)


def digest_of(row: str) -> str:
    """Return the digest over a group's rows: SHA-256 of their own hashes (32 bytes each), in hex, sorted and joined.

    In hex, because ClickHouse takes zero bytes off the end of a hash that becomes text.
    """
    return f"lower(hex(SHA256(lower(arrayStringConcat(arrayMap(h -> hex(h), arraySort(groupArray({row}))))))))"


def _extent_sql(part: TablePart) -> str:
    # Without FINAL: every version counts, which only makes slices smaller.
    return (
        f"SELECT count(), intDiv(toUnixTimestamp(min({part.booked})), 3600),"  # noqa: S608
        f" intDiv(toUnixTimestamp(max({part.booked})), 3600) FROM @{part.name} WHERE {part.where}"
    )


def leaves_sql(part: TablePart) -> str:
    """Return the query for a part's leaves of booked hours `first` to `last`, in order."""
    row = f"SHA256(concat({', '.join(part.fields)}))"
    return (
        f"SELECT intDiv(toUnixTimestamp({part.booked}), 3600) AS leaf_hour, {part.owner} AS leaf_owner,"  # noqa: S608
        f" {part.item} AS leaf_item, count(), toInt64(sum(t.{part.events})), toDecimalString(sum(t.{part.total}), 12),"
        f" {digest_of(row)}"
        f" FROM (SELECT * FROM @{part.name} FINAL) AS t WHERE {part.where}"
        f" AND {part.booked} >= {{first:DateTime}} AND {part.booked} < {{last:DateTime}}"
        " GROUP BY leaf_hour, leaf_owner, leaf_item ORDER BY leaf_hour, leaf_owner, leaf_item"
    ).replace("sum(t.0)", "0")


def table_leaves(stores: Stores, part: TablePart, scope: Scope) -> Iterator[Leaf]:
    """Yield the leaves of a table, in order."""
    ((rows, first, last),) = stores.client.query(stores.resolved(_extent_sql(part)), scope.parameters).result_rows
    if not rows:
        return
    # Hours are not alike: four times the number of slices that would do if they were.
    slices = 1 if rows <= ROWS_PER_SLICE_MAX else -(-4 * rows // ROWS_PER_SLICE_MAX)
    hours = max(1, -(-(last + 1 - first) // slices))
    text = stores.resolved(leaves_sql(part))
    for start in range(first, last + 1, hours):
        span = {"first": of_hour(start), "last": of_hour(start + hours)}
        for block in stores.client.blocks(text, scope.parameters | span):
            for hour, owner, item, count, events, total, digest in block:
                yield Leaf(int(hour), owner, item, int(count), int(events), _trimmed(total), digest)


def _trimmed(total: str) -> str:
    return total.rstrip("0").rstrip(".")
