"""`meterbridge post` as a process: exit codes, SIGTERM, kill -9 in mid-batch; and the rows in a real ClickHouse."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from config.settings import ClickHouseSettings
from flows.poster_states import ClickHouseStateWriter
from sinks import clickhouse as clickhouse_sinks
from sinks.clickhouse.client import connect
from sinks.erp.journal import JournalAdapter
from sinks.erp.port import Window
from sinks.ledger import audit, held, leases, tables
from sinks.ledger.database import read, write
from tests.flows.poster_world import BY_CUSTOMER, World, many, postings_of
from tests.sinks.ledger.samples import HOUR, SampleDocument, entity, key


def environment(directory: Path) -> dict[str, str]:
    """Return the environment of a poster on that state directory, without ClickHouse."""
    return os.environ | {
        "METERBRIDGE_STATE_DIR": str(directory),
        "METERBRIDGE_CLICKHOUSE__URL": "http://127.0.0.1:9",
        "METERBRIDGE_METRICS__POSTER_PORT": "0",
        "METERBRIDGE_POSTER__POLL_S": "0.05",
        "METERBRIDGE_POSTER__BATCH_DOCUMENTS": "3",
    }


def post(directory: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run `meterbridge post --once --json` and return the exit code and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "--json", "post", "--once", *arguments],
        env=environment(directory),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, json.loads(done.stdout or done.stderr.splitlines()[-1] or "{}") if done.stdout else {}


def start(directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "post"],
        env=environment(directory),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def world_in(directory: Path) -> World:
    return World(f"sqlite:///{directory / 'ledger.sqlite'}")


def test_once_delivers_says_so_and_fails_only_for_an_error(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.configure()
    world.book(*many(4), SampleDocument(key(50), booked_hour=HOUR + 1), complete_hour=HOUR + 1)
    code, said = post(tmp_path)
    assert (code, said["posted"], said["by_state"]) == (0, 1, {"POSTED": 1})  # the open hour is no error
    world.book(SampleDocument(key(51), booked_hour=HOUR + 1, revenue_role="shortfall_revenue"), complete_hour=HOUR + 2)
    code, said = post(tmp_path)
    assert (code, said["by_state"], said["undelivered_for_error"]) == (1, {"POSTED": 2, "HELD": 1}, 1)
    (one,) = [row for row in postings_of(world) if row.state == "HELD"]
    assert post(tmp_path, "--release", one.key, "--reason", "try again")[0] == 1  # the journal says no again
    with read(world.engine) as connection:
        assert [row["reason"] for row in audit.entries(connection, one.key)] == ["try again"]
    world.configure(entity(accounts={"unbilled_receivable": "1150", "shortfall_revenue": "4003"}), known_from_ms=10**15)
    code, said = post(tmp_path)
    assert (code, said["by_state"]) == (0, {"POSTED": 3})
    world.engine.dispose()


def test_sigterm_ends_it_with_the_lease_given_back(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.configure(BY_CUSTOMER)
    world.book(*many(4))
    process = start(tmp_path)
    until = time.monotonic() + 40
    while world.states() != {"POSTED": 4} and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    with read(world.engine) as connection:
        assert connection.execute(tables.leases.select()).one().expires_at_ms == 0
    world.engine.dispose()


@pytest.mark.slow
def test_kill_9_at_any_time_books_every_posting_once(tmp_path: Path) -> None:
    chance = random.Random(11)
    world = world_in(tmp_path)
    world.configure(BY_CUSTOMER)
    world.book(*many(400))
    kills = 0
    until = time.monotonic() + 200
    while world.states() != {"POSTED": 400} and time.monotonic() < until:
        process = start(tmp_path)
        while not world.states() and process.poll() is None:
            time.sleep(0.02)
        before = world.states().get("POSTED", 0)
        while world.states().get("POSTED", 0) in (before, 400) and world.states() != {"POSTED": 400}:
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        process.wait()
        kills += 1
        with write(world.engine) as connection:  # the dead one's lease runs out
            connection.execute(update(tables.leases).values(expires_at_ms=0))
    assert world.states() == {"POSTED": 400}
    assert kills >= 3
    entries = list(JournalAdapter(tmp_path / "books").read_back(Window(date.min, date.max)))
    assert sorted(entry.key for entry in entries) == sorted(row.key for row in postings_of(world))
    assert {entry.number for entry in entries} == {f"J-{number:08d}" for number in range(1, 401)}
    world.engine.dispose()


def test_the_rows_reach_a_real_clickhouse(tmp_path: Path, clickhouse_settings: ClickHouseSettings) -> None:
    clickhouse_sinks.migrate(clickhouse_settings)
    world = world_in(tmp_path)
    world.configure()
    world.book(*many(2), SampleDocument(key(9), "0.00"))
    summary = world.poster(writer=ClickHouseStateWriter(clickhouse_settings)).run_once()
    assert summary.states_unwritten == 0
    with connect(clickhouse_settings) as client:
        rows = client.query(
            f"SELECT key, posting_key, state, erp_reference FROM {clickhouse_settings.database}.posting_states_current"
            " ORDER BY key"
        ).result_rows
    posting = postings_of(world)[0].key
    assert [tuple(row) for row in rows] == [
        (key(0), posting, "POSTED", "E-1"),
        (key(1), posting, "POSTED", "E-1"),
        (key(9), "", "NOT_POSTED_ZERO", ""),
    ]
    world.engine.dispose()


def test_release_takes_held_postings_only(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.configure()
    world.book(*many(1))
    world.once()
    with pytest.raises(Exception, match="no held posting"):
        held.release(
            world.engine, postings_of(world)[0].key, actor="ann", reason="x", now=world.clock.now() + leases.TTL
        )
    world.engine.dispose()
