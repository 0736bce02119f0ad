"""History sent into books that are open: previewed, sent once whatever happens, and known ids left out."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from typer.testing import CliRunner

from cli.main import app
from core.errors import InvalidRequest
from flows import backfill, runtime
from flows.backfill import Person
from queries.stores import open_stores
from sinks.ledger import audit, retention
from sinks.ledger.database import read
from sources import event_file
from sources.producer import Producer
from sources.workload import Workload
from tests.flows.conftest import Deploy
from tests.flows.harness import Deployment

NOW = datetime.now(UTC)
START = NOW.replace(minute=0, second=0, microsecond=0) - timedelta(hours=8)
ANN = Person("ann", "the gateway was offline")
OPEN, TOO_OLD = 30, 3


def event(name: str, when: datetime | None, tokens: Any = 1000) -> bytes:
    plain: dict[str, Any] = {"specversion": "1.0", "id": name, "source": "archive", "type": "llm.completion"}
    plain |= {"subject": "stark", "data": {"model": "embed-3", "region": "eu", "input_tokens": tokens}}
    if when is not None:
        plain["time"] = f"{when:%Y-%m-%dT%H:%M:%SZ}"
    return orjson.dumps(plain)


def file_of(directory: Path, deployed: Deployment, closed: datetime) -> Path:
    """Lines of every kind; those of the closed period are five."""
    known = [row[0] for row in deployed.query("SELECT data FROM @usage_events_current ORDER BY id LIMIT 4")]
    changed = orjson.loads(known[0]) | {"subject": "stark"}
    lines = [
        *(event(f"open-{number}", NOW - timedelta(seconds=number + 1)) for number in range(OPEN)),
        *(event(f"closed-{number}", closed + timedelta(minutes=number)) for number in range(5)),
        *(event(f"old-{number}", NOW - timedelta(days=100 + number)) for number in range(TOO_OLD)),
        event("untimed", None),
        b"broken",
        orjson.dumps(changed),
        *(row.encode() for row in known[1:]),
    ]
    path = directory / "history.ndjson"
    path.write_bytes(b"\n".join(lines))
    return path


@pytest.fixture
def metered(deployment: Deploy) -> Deployment:
    deployed = deployment()
    Producer(deployed.settings.redis).send(Workload(seed=4, events=600, start=START, end=START + timedelta(hours=2)))
    runtime.run(deployed.settings, deployed.configuration, drain=True)
    return deployed


@pytest.fixture
def closed(metered: Deployment) -> datetime:
    """A time in a closed accounting period that is not too old: the period before this one is made to be closed."""
    from config.period_closes import PeriodClose  # noqa: PLC0415
    from sinks import ledger  # noqa: PLC0415
    from sinks.ledger import closes  # noqa: PLC0415

    here = NOW.astimezone(ZoneInfo("America/New_York"))  # the entity's calendar
    when = (here.replace(day=1, hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)).astimezone(UTC)
    engine = ledger.connect(metered.settings.ledger_url)
    closes.record(engine, PeriodClose("US01", f"{when:%Y-%m}", 0, "close"), actor="x", reason="test", now=NOW)
    engine.dispose()
    return when


def accepted(deployed: Deployment) -> int:
    return sum(count for (outcome, _), count in deployed.outcomes().items() if outcome == "accepted")


def test_a_preview_says_what_would_become_of_each_line_and_changes_nothing(
    metered: Deployment, closed: datetime, tmp_path: Path
) -> None:
    path = file_of(tmp_path, metered, closed)
    with open_stores(metered.settings) as stores:
        held_back = backfill.preview(stores, path, "open-periods", NOW)
        all_of_it = backfill.preview(stores, path, "now", NOW)

    assert held_back.lines == OPEN + 5 + TOO_OLD + 6
    assert held_back.verdicts == {
        "send": OPEN, "closed": 5, "rejected": TOO_OLD + 1, "untimed": 1, "conflict": 1, "known": 3
    }  # fmt: skip
    assert held_back.reasons == {"too_old": TOO_OLD, "malformed_json": 1}
    assert held_back.tenants == {"stark"}
    assert held_back.meters["input_tokens"] == [OPEN, Decimal(OPEN * 1000)]
    assert held_back.estimates == {"USD": OPEN * Decimal("0.00013")}
    assert {state for _, _, state in held_back.periods} == {"open"}
    assert all_of_it.verdicts["send"] == OPEN + 5
    assert all_of_it.periods["US01", f"{closed:%Y-%m}", "closed"] == 5
    assert not backfill.held_path(path).exists()
    assert backfill.to_plain(all_of_it)["estimates"] == {"USD": "0.004550000000"}


def test_history_whose_raw_events_expired_is_held_back(metered: Deployment, closed: datetime, tmp_path: Path) -> None:
    """Whether it was counted is known by its raw event alone: sent again it could count twice."""
    path = tmp_path / "old.ndjson"
    path.write_bytes(b"\n".join(event(f"old-{number}", closed + timedelta(minutes=number)) for number in range(5)))
    with open_stores(metered.settings) as stores:
        assert backfill.preview(stores, path, "now", NOW).verdicts == {"send": 5}
        month = closed.year * 100 + closed.month
        retention.record(stores.engine, retention.Expiration("usage_events", month, 9, 1, "", NOW), "ann")
        assert backfill.preview(stores, path, "now", NOW).verdicts == {"expired": 5}
        state = backfill.send(stores, path, "now", ANN, lambda: NOW)
    assert (state.sent, state.verdicts) == (0, {"expired": 5})
    assert b"whether it was counted" in backfill.held_path(path).read_bytes()


def test_a_backfill_goes_on_where_it_died_and_counts_everything_once(
    metered: Deployment, closed: datetime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_file, "BATCH_LINES", 9)
    path, before = file_of(tmp_path, metered, closed), accepted(metered)
    real, calls = backfill._save, []

    def dies(to: Path, state: backfill.State) -> None:
        calls.append(state.lines)
        if len(calls) in (2, 4):  # a batch is sent, and nobody will know
            raise KeyboardInterrupt
        real(to, state)

    monkeypatch.setattr(backfill, "_save", dies)
    with open_stores(metered.settings) as stores:

        def send() -> backfill.State:
            return backfill.send(stores, path, "now", ANN, lambda: NOW, batch=10)

        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                send()
        state = send()
        assert state.sent == OPEN + 5
        with pytest.raises(InvalidRequest, match="--restart"):
            send()
        runtime.run(metered.settings, metered.configuration, drain=True)
        again = backfill.send(stores, path, "now", ANN, lambda: NOW, restart=True)
        with read(stores.engine) as connection:
            (entry, _) = audit.entries(connection, subject=path.name)

    assert calls[:5] == [9, 18, 18, 27, 27]
    assert accepted(metered) == before + OPEN + 5
    assert (again.sent, again.verdicts["known"]) == (0, OPEN + 5 + 3)
    held = [orjson.loads(line) for line in backfill.held_path(path).read_bytes().splitlines()]
    assert [row["why"] for row in held] == ["rejected"] * TOO_OLD + ["untimed", "rejected", "conflict"]
    assert len({row["line"] for row in held}) == len(held)
    assert (entry["actor"], entry["reason"], entry["action"]) == ("ann", ANN.reason, "backfill")
    late = metered.query("SELECT sum(f.events) FROM @usage_facts_current AS f WHERE meter = 'requests' AND"
                         " tenant = 'stark' AND toDate(usage_minute) = {day:Date}", day=closed.date())  # fmt: skip
    assert late == [(5,)]


def test_preview_then_send(deployment: Deploy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployed = deployment()
    runtime.run(deployed.settings, deployed.configuration, drain=True)
    for name, value in deployed.environment().items():
        monkeypatch.setenv(name, value)
    now = datetime.now(UTC)
    path = tmp_path / "some.ndjson"
    path.write_bytes(b"\n".join([event("a", now - timedelta(seconds=9)), event("b", now), b"broken"]))

    shown = CliRunner().invoke(app, ["backfill", str(path), "--json"])
    assert shown.exit_code == 0, shown.output
    preview = orjson.loads(shown.stdout)
    assert preview["sent"] is False
    assert preview["preview"]["verdicts"] == {"send": 2, "rejected": 1}
    text = CliRunner().invoke(app, ["backfill", str(path)])
    assert "Nothing was sent" in text.output

    sent = CliRunner().invoke(app, ["backfill", str(path), "--yes", "--reason", "test", "--json"])
    assert sent.exit_code == 0, sent.output
    assert orjson.loads(sent.stdout)["events"] == 2
    assert len((tmp_path / "some.ndjson.held.ndjson").read_text().splitlines()) == 1
    runtime.run(deployed.settings, deployed.configuration, drain=True)
    assert deployed.outcomes()["accepted", ""] == 2
