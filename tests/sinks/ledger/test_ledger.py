"""The ledger's contract, on both databases."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Engine, exc, inspect, select, text

from config.settings import Settings
from core.clock import ManualClock
from core.errors import FatalError, InvalidRequest, InvariantViolation, StateMismatch, Unreachable
from sinks import ledger
from sinks.ledger import audit, deployment, documents, exceptions, leases, progress, revisions, tables
from sinks.ledger.database import read, write
from sinks.ledger.migrations import MIGRATIONS
from tests.sinks.ledger.samples import HOUR, SampleDocument, entity, key, revision

NOW = datetime(2025, 11, 24, 17, tzinfo=UTC)


def test_the_migrated_tables_are_the_tables_of_the_code(engine: Engine) -> None:
    found = inspect(engine)
    for table in tables.metadata.sorted_tables:
        assert {column["name"] for column in found.get_columns(table.name)} == {column.name for column in table.columns}
        primary = found.get_pk_constraint(table.name)["constrained_columns"]
        assert set(primary) == {column.name for column in table.primary_key.columns}


def test_migrations_are_applied_once_even_by_two_at_once(engine: Engine) -> None:
    url = engine.url.render_as_string(hide_password=False)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(ledger.migrate, [url, url])) == [[], []]


def test_a_fresh_database_gets_each_migration_from_one_of_two(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/deep/er/ledger.sqlite"
    with ThreadPoolExecutor(2) as pool:
        applied = list(pool.map(ledger.migrate, [url, url]))
    assert sorted(applied) == [[], [name for name, _ in MIGRATIONS]]


def test_a_database_that_is_not_ready_says_what_to_do(engine: Engine, tmp_path: Path) -> None:
    ledger.check_ready(engine)
    empty = ledger.connect(f"sqlite:///{tmp_path}/empty.sqlite")
    with pytest.raises(InvalidRequest, match=r"lacks 0001_initial, 0002_erp, .*: run `meterbridge migrate`"):
        ledger.check_ready(empty)
    for url in (f"sqlite:///{tmp_path}", "postgresql://u:secret@127.0.0.1:9/x"):
        with pytest.raises(Unreachable, match="METERBRIDGE_LEDGER__URL") as caught:
            ledger.check_ready(ledger.connect(url))
        assert "secret" not in str(caught.value)
        with pytest.raises(Unreachable, match="METERBRIDGE_LEDGER__URL") as caught:
            ledger.migrate(url)
        assert "secret" not in str(caught.value)
    with write(engine) as connection:
        connection.execute(text("INSERT INTO migrations (name, applied_at_ms) VALUES ('9999_future', 1)"))
    try:
        with pytest.raises(InvalidRequest, match="newer version"):
            ledger.check_ready(engine)
    finally:
        with write(engine) as connection:
            connection.execute(text("DELETE FROM migrations WHERE name = '9999_future'"))


def test_a_file_that_is_no_database_is_said_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_bytes(b"garbage " * 1000)
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    with pytest.raises(FatalError, match="is damaged: file is not a database"):
        ledger.check_ready(ledger.connect(url))
    with pytest.raises(FatalError, match="is damaged: file is not a database"):
        ledger.migrate(url)


def test_a_missing_table_is_not_waited_for(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(exc.DBAPIError) as caught, read(engine) as connection:
        connection.execute(text("SELECT * FROM nowhere"))
    assert not ledger.unreachable(caught.value)
    with (
        pytest.raises(exc.DBAPIError) as caught,
        read(ledger.connect("postgresql://u:secret@127.0.0.1:9/x")) as connection,
    ):
        connection.execute(text("SELECT 1"))
    assert ledger.unreachable(caught.value)


def test_sqlite_is_set_up_for_durability(tmp_path: Path) -> None:
    engine = ledger.connect(f"sqlite:///{tmp_path}/ledger.sqlite")
    with engine.connect() as connection:
        wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5_000}
        for pragma, value in wanted.items():
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value
    engine.dispose()


def test_a_postgresql_that_the_network_swallows_is_away_after_a_while(postgres_url: str) -> None:
    engine = ledger.connect(postgres_url)
    with read(engine) as connection:
        known = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]
    engine.dispose()
    assert known["tcp_user_timeout"] == "30000"
    assert int(known["keepalives_idle"]) + int(known["keepalives_interval"]) * int(known["keepalives_count"]) <= 30


def test_deployment_is_fixed_and_only_streams_may_be_added(engine: Engine) -> None:
    settings = Settings()
    deployment.fix(engine, settings)
    deployment.fix(engine, settings)
    longer = settings.redis.model_copy(update={"streams": (*settings.redis.streams, "usage:4")})
    deployment.fix(engine, settings.model_copy(update={"redis": longer}))
    with pytest.raises(StateMismatch, match=r"redis\.streams"):
        deployment.fix(engine, settings)
    other = settings.flow.model_copy(update={"id_shards": 8, "readers": 2})
    with pytest.raises(StateMismatch, match=r"flow\.id_shards is 8.*flow\.readers is 2"):
        deployment.fix(engine, settings.model_copy(update={"flow": other, "redis": longer}))


def test_revisions_come_back_as_recorded_and_the_past_never_changes(engine: Engine) -> None:
    assert revisions.load_history(engine) == []
    assert revisions.load_history_if_changed(engine, None) is None
    first, second = revision(), revision(entity("DE01"), known_from_ms=3_600_000)
    revisions.record_revision(engine, first, NOW)
    revisions.record_revision(engine, first, NOW + timedelta(days=1))
    revisions.record_revision(engine, second, NOW)
    assert [(one.digest, one.known_from_ms) for one in revisions.load_history(engine)] == [
        (first.digest, 0),
        (second.digest, 3_600_000),
    ]
    assert [at for _, at in revisions.recorded(engine)] == [NOW, NOW]
    history = revisions.load_history_if_changed(engine, None)
    assert history is not None
    assert revisions.load_history_if_changed(engine, history) is None
    for known_from_ms in (0, 3_600_000):
        with pytest.raises(InvariantViolation, match="must not change"):
            revisions.record_revision(engine, revision(entity("FR01"), known_from_ms=known_from_ms), NOW)


def test_an_edited_revision_is_noticed(engine: Engine) -> None:
    revisions.record_revision(engine, revision(), NOW)
    with write(engine) as connection:
        connection.execute(tables.config_revisions.update().values(text=revision(entity("XX01")).text))
    with pytest.raises(InvariantViolation, match="edited"):
        revisions.load_history(engine)


def test_amounts_are_exact(engine: Engine) -> None:
    amount = "12345678901234567890123.000000000001"
    with write(engine) as connection:
        assert documents.stage(connection, [SampleDocument(key(1), amount)], 1) == []
    with read(engine) as connection:
        stored = connection.execute(select(tables.document_lines.c.amount)).scalars().all()
    assert stored == [Decimal(amount), Decimal(amount)]


def test_staging_ignores_a_replay_and_refuses_other_content(engine: Engine) -> None:
    one, two = SampleDocument(key(1)), SampleDocument(key(2))
    with write(engine) as connection:
        assert documents.stage(connection, [one, one], 1) == []
        assert documents.stage(connection, [one, two], 2) == []
        refused = documents.stage(connection, [SampleDocument(key(3)), SampleDocument(key(1), "12.35")], 3)
    assert [(item.key, item.kind) for item in refused] == [(key(1), "digest_conflict")]
    with write(engine) as connection:
        documents.promote(connection, None)
    assert documents.digests_before(engine, HOUR + 1) == {key(1): one.digest, key(2): two.digest}
    assert documents.digests_before(engine, HOUR) == {}


def test_promotion_discard_and_zero_documents(engine: Engine) -> None:
    with write(engine) as connection:
        documents.stage(connection, [SampleDocument(key(1)), SampleDocument(key(2), "0.00")], 1)
        documents.stage(connection, [SampleDocument(key(3), "-0.05")], 2)
        documents.stage(connection, [SampleDocument(key(4))], 3)
        assert documents.discard(connection, 2) == 1
        assert documents.promote(connection, 1) == 1
    assert documents.count_by_state(engine) == {"PENDING": 1, "NOT_POSTED_ZERO": 1, "STAGED": 1}
    assert documents.net_totals(engine) == {"USD": Decimal("12.34")}
    with write(engine) as connection:
        assert documents.promote(connection, None) == 1
    assert documents.net_totals(engine) == {"USD": Decimal("12.29")}
    with read(engine) as connection:
        keys = connection.execute(select(tables.document_lines.c.document_key).distinct()).scalars().all()
    assert sorted(keys) == [key(1), key(2), key(3)]  # the discarded document's lines went with it


def test_progress_is_kept_by_name(engine: Engine) -> None:
    assert (progress.watermark_ms(engine), progress.high_water_ms(engine)) == (0, 0)
    with write(engine) as connection:
        progress.put(connection, progress.PROMOTED, progress.Progress(3, 1000, {"a": 1000}))
        progress.put(connection, progress.PROMOTED, progress.Progress(4, 2000, {"a": 2000, "b": 9000}))
    with read(engine) as connection:
        assert progress.get(connection, progress.PROMOTED) == progress.Progress(4, 2000, {"a": 2000, "b": 9000})
    assert progress.watermark_ms(engine) == 2000


def test_an_exception_is_one_row_until_resolved(engine: Engine) -> None:
    with write(engine) as connection:
        exceptions.raise_exception(connection, "held", "X", "first", NOW)
        exceptions.raise_exception(connection, "held", "X", "second", NOW + timedelta(hours=1))
        exceptions.raise_exception(connection, "hel", "dX", "other", NOW)
        rows = exceptions.open_exceptions(connection)
        assert sorted((row["kind"], row["detail"]) for row in rows) == [("hel", "other"), ("held", "first")]
        exceptions.resolve(connection, "held", ["X"], NOW)
        assert len(exceptions.open_exceptions(connection)) == 1
        exceptions.raise_exception(connection, "held", "X", "again", NOW)
        assert {row["detail"] for row in exceptions.open_exceptions(connection)} == {"other", "again"}


def test_the_audit_log_keeps_every_row(engine: Engine) -> None:
    with write(engine) as connection:
        for reason in ("one", "two"):
            audit.record(connection, at=NOW, actor="ann", action="approve", subject="K", reason=reason)
        audit.record(connection, at=NOW, actor="bob", action="release", subject="L")
        assert [row["reason"] for row in audit.entries(connection, "K")] == ["two", "one"]
        assert len(audit.entries(connection)) == 3


def test_a_lease_has_one_holder_and_its_fence_grows(engine: Engine) -> None:
    ttl = timedelta(seconds=30)
    first = leases.acquire(engine, "US01", "a", NOW, ttl)
    assert first is not None
    assert leases.acquire(engine, "US01", "b", NOW + timedelta(seconds=29), ttl) is None
    assert leases.acquire(engine, "US01", "a", NOW + timedelta(seconds=10), ttl) == first
    second = leases.acquire(engine, "US01", "b", NOW + timedelta(seconds=41), ttl)
    assert second is not None
    assert second.fence == first.fence + 1
    with write(engine) as connection, pytest.raises(leases.LeaseLost):
        leases.check(connection, first)
    leases.release(engine, first)  # not ours any more: changes nothing
    assert leases.acquire(engine, "US01", "a", NOW + timedelta(seconds=42), ttl) is None
    leases.release(engine, second)
    third = leases.acquire(engine, "US01", "a", NOW + timedelta(seconds=42), ttl)
    assert third is not None
    assert third.fence == second.fence + 1


def test_a_lease_of_a_clock_that_was_set_back_is_taken_once_it_is_silent_for_its_length(engine: Engine) -> None:
    """Given a lease that an hour's step back made an hour too long; then who watches it takes it after its length."""
    clock = ManualClock(NOW)
    watch = leases.LeaseWatch(clock)
    ahead = leases.acquire(engine, "US01", "a", clock.now() + timedelta(hours=1))
    assert ahead is not None
    for _ in range(7):
        assert leases.acquire(engine, "US01", "b", clock.now(), watch=watch) is None
        clock.sleep(10)
    taken = leases.acquire(engine, "US01", "b", clock.now(), watch=watch)
    assert taken is not None
    assert taken.fence == ahead.fence + 1
    with write(engine) as connection, pytest.raises(leases.LeaseLost):
        leases.check(connection, ahead)


def test_a_lease_that_is_renewed_is_never_taken_by_who_watches_it(engine: Engine) -> None:
    clock = ManualClock(NOW)
    watch = leases.LeaseWatch(clock)
    held = leases.acquire(engine, "US01", "a", clock.now())
    assert held is not None
    for _ in range(20):
        assert leases.acquire(engine, "US01", "b", clock.now(), watch=watch) is None
        clock.sleep(20)
        leases.renew(engine, held, clock.now())


def test_two_that_want_a_new_lease_at_once_give_one_holder(engine: Engine) -> None:
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda name: leases.acquire(engine, "US01", name, NOW), "abcdefgh"))
    assert len([lease for lease in got if lease is not None]) == 1
