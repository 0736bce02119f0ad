"""What must be true at the end: the stores equal an undisturbed run of other sizes, and naive oracles."""

from collections import Counter, defaultdict
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from config.settings import FlowSettings
from operators.document import Document
from sinks.ledger import tables
from sinks.ledger.database import read
from tests.flows.oracle import Oracle, Result
from tests.operators.rate_oracle import cost, month_of, q12
from tests.simulation.disk import FaultyDisk
from tests.simulation.engine import Committed, Life, Plan
from tests.simulation.fate import Fate, require
from tests.simulation.reader_world import build_reader
from tests.simulation.redis_server import Server
from tests.simulation.variants import HOURS, Customers
from tests.simulation.warehouse import Warehouse

if TYPE_CHECKING:
    from tests.simulation.flow_world import FlowWorld

JANUARY, FEBRUARY = (2024, 1), (2024, 2)


def compare(world: "FlowWorld") -> None:
    """Compare everything; raises Broken with the first difference."""
    entries = world.server.all_entries(world.streams)
    expected = Oracle(world.history.revisions[0].configuration).run(entries)
    booked = _documents(world)
    if world.variant.oracle_knows or len(world.history.revisions) == 1:
        _same("outcomes", _outcomes(world.warehouse), dict(expected.outcomes))
    if world.variant.oracle_knows:
        _same("facts", _facts(world.warehouse), expected.facts)
        customers = world.variant.customers(second=len(world.history.revisions) > 1)
        _same("amounts", _totals(booked.values(), customers), _amounts(expected, customers, world.variant.charges))
    undisturbed, made = _run_undisturbed(world)
    for table in ("usage_events", "usage_rejects", "usage_facts", "rated_usage"):
        _same(table, world.warehouse.final_rows(table), undisturbed.final_rows(table))
    _same("exceptions", world.warehouse.tables["exceptions"], undisturbed.tables["exceptions"])
    _same("documents", {key: document.digest for key, document in booked.items()}, made)
    _same("stored documents", world.warehouse.documents, made)
    _same("balances", _erp_totals(world), _document_totals(booked.values()))


def _same(what: str, actual: Any, expected: Any) -> None:
    if actual == expected:
        return
    if isinstance(actual, dict):
        keys = [key for key in sorted(actual.keys() | expected.keys()) if actual.get(key) != expected.get(key)]
        text = "; ".join(f"{key}: is {actual.get(key)}, must be {expected.get(key)}" for key in keys[:3])
    else:
        text = f"only here {sorted(set(actual) - set(expected))[:2]}, missing {sorted(set(expected) - set(actual))[:2]}"
    require(holds=False, what=f"{what} differ: {text}")


def _facts(warehouse: Warehouse) -> dict[Any, Any]:
    rows = warehouse.tables["usage_facts"].values()
    return {
        (row["tenant"], row["meter"], row["dimensions"], row["usage_minute"], row["booked_minute"]): (
            row["value"],
            row["events"],
            row["version"],
        )
        for row in rows
    }


def _outcomes(warehouse: Warehouse) -> dict[tuple[str, str], int]:
    found: Counter[tuple[str, str]] = Counter()
    for row in warehouse.tables["intake_counts"].values():
        found[row["outcome"], row["reason"]] += row["events"]
    return dict(found)


def _documents(world: "FlowWorld") -> dict[str, Document]:
    with read(world.engine) as connection:
        rows = connection.execute(select(tables.documents.c.key, tables.documents.c.json)).all()
    return {row.key: Document.from_json(row.json) for row in rows}


def _totals(documents: Any, customers: Customers) -> dict[str, Decimal]:
    found: dict[str, Decimal] = dict.fromkeys(customers, Decimal(0))
    for document in documents:
        found[document.customer] += document.total
    return found


def _amounts(expected: Result, customers: Customers, charges: list[dict[str, Any]]) -> dict[str, Decimal]:
    """Price each customer's periods at once: January to its end, February to date."""
    owners = {subject: customer for customer, subjects in customers.items() for subject in subjects}
    used: dict[tuple[str, str, tuple[int, int]], Fraction] = defaultdict(Fraction)
    for (tenant, meter, _, usage_minute, _), (value, _, _) in expected.facts.items():
        if tenant in owners:
            used[owners[tenant], meter, month_of(usage_minute)] += Fraction(value)
    found: dict[str, Decimal] = {}
    for customer in customers:
        amounts = [
            q12(cost(charge, used[customer, charge.get("meter", ""), month], month == JANUARY))
            for charge in charges
            for month in (JANUARY, FEBRUARY)
        ]
        found[customer] = sum((_cents(amount) for amount in amounts), Decimal(0))
    return found


def _cents(amount: Fraction) -> Decimal:
    exact = Decimal(amount.numerator) / Decimal(amount.denominator)
    return exact.quantize(Decimal("0.01"), ROUND_HALF_UP)


def _erp_totals(world: "FlowWorld") -> dict[str, Decimal]:
    found: dict[str, Decimal] = defaultdict(Decimal)
    for posting in world.desk.erp.booked.values():
        for line in posting.lines:
            found[line.account_role] += line.signed
    return {role: total for role, total in found.items() if total}


def _document_totals(documents: Any) -> dict[str, Decimal]:
    found: dict[str, Decimal] = defaultdict(Decimal)
    for document in documents:
        for line in document.lines:
            found[line.account_role] += line.amount if line.side == "debit" else -line.amount
    return {role: total for role, total in found.items() if total}


class _NoOutbox:
    """Takes the documents of a run whose ledger nobody looks at."""

    def write_batch(self, items: list[Any]) -> None:
        """Take items."""

    def snapshot(self) -> dict[str, Any]:
        """Return nothing to resume from."""
        return {}


def _run_undisturbed(world: "FlowWorld") -> tuple[Warehouse, dict[str, str]]:
    """Run the streams once more from their beginning: no fault, other shard counts, large items, one life."""
    fate = Fate(0, "undisturbed")
    fate.calm()
    server = Server(world.clock)
    for name, stream in world.server.streams.items():
        copy = server.streams.setdefault(name, type(stream)())
        copy.entries = [*stream.trimmed, *stream.entries]
        copy.added, copy.last = stream.added, stream.last
    directory = world.undisturbed_dir
    directory.mkdir()
    warehouse = Warehouse(unique_identities=world.variant.span is HOURS)
    shards = world.settings.flow
    flow = FlowSettings(
        id_shards=3 - shards.id_shards,
        tenant_shards=3 - shards.tenant_shards,
        customer_shards=3 - shards.customer_shards,
    )
    settings = world.settings.model_copy(update={"flow": flow})

    grace_s = world.history.latest.rules.grace_s

    def readers(committed: Committed) -> dict[str, Any]:
        streams = list(enumerate(world.streams))
        name = "reader-00"
        return {
            name: build_reader(name, streams, committed.get(name), server, fate, world.clock, settings, grace_s=grace_s)
        }

    plan = Plan(
        fate=fate,
        history=world.history,
        streams=world.streams,
        shards=flow,
        directory=directory,
        disk=FaultyDisk(fate, directory),
        seal_records=1000,
        warehouse=warehouse,
        readers=readers,
        outbox=lambda _state: _NoOutbox(),
    )
    life = Life(plan, {})
    made: dict[str, str] = {}
    try:
        life.start()
        for _ in range(2):
            life.epoch()
            made |= {document.key: document.digest for document in life.documents}
            world.clock.sleep(1)
    finally:
        life.close()
    return warehouse, made
