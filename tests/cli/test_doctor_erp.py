"""`doctor` projects the lines of a month against what the ERP takes."""

from pathlib import Path

from cli.doctor_checks import Finding
from cli.doctor_erp import erp
from config.settings import LedgerSettings, Settings
from sinks.erp.port import MasterData, Record
from sinks.ledger import erp_status, master_data
from tests.flows.poster_world import World, many
from tests.sinks.ledger.invoice_books import configured
from tests.sinks.ledger.samples import HOUR, entity


def findings(directory: Path) -> dict[str, Finding]:
    url = f"sqlite:///{directory / 'ledger.sqlite'}"
    settings = Settings(state_dir=directory, ledger=LedgerSettings.model_validate({"url": url}))
    return {found.check: found for found in erp(settings)}


def test_a_month_is_projected_from_the_booked_hours_and_compared(tmp_path: Path) -> None:
    assert findings(tmp_path) == {}
    world = World(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    assert findings(tmp_path) == {}
    world.configure(entity(grain="customer", lines_per_month_max=20_000))
    for hour in range(4):  # 5 customers x 2 lines an hour: 7,300 a month
        world.book(*many(5, 10 * hour, booked_hour=HOUR + hour), complete_hour=HOUR + hour + 1)
    world.once()
    found = findings(tmp_path)["lines US01"]
    detail = "40 in 4 booked hours: 7,300 a month of 20,000; largest posting 2 of 100,000"
    assert (found.state, found.detail) == ("ok", detail)
    for limit, state in ((9_126, "ok"), (9_124, "warn"), (7_300, "warn"), (7_299, "fail")):
        world.configure(entity(lines_per_month_max=limit), known_from_ms=10**12 * (20_000 - limit))
        assert findings(tmp_path)["lines US01"].state == state, limit
    world.engine.dispose()


def test_what_is_not_mapped_or_not_in_the_erp_is_named(tmp_path: Path) -> None:
    world = World(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    plain = configured()
    (made,) = plain.pop("entities")
    world.configure(made, **plain)
    assert findings(tmp_path)["mappings US01"].state == "ok"
    mapped = made | {"erp": made["erp"] | {"mappings": {"taxes": {"saas": "VAT19"}, "customers": {"acme": "C-9"}}}}
    world.configure(mapped, known_from_ms=10**13, **plain)
    records = (Record("tax", "VAT19", active=False), Record("party", "CUST-globex"))
    data = MasterData(records, frozenset({"tax", "party"}))
    master_data.keep(world.engine, "US01", data, (), world.clock.now())
    found = findings(tmp_path)["mappings US01"]
    assert found.state == "warn"
    assert found.detail == "customer acme: the ERP has no party C-9; tax saas: tax VAT19 is not active in the ERP"
    world.engine.dispose()


def test_presets_and_an_erp_that_is_away(tmp_path: Path) -> None:
    world = World(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    world.configure(entity(limits="netsuite"))
    world.book(*many(2))
    world.once()
    assert "1,460 a month of 200,000; largest posting 2 of 1,000" in findings(tmp_path)["lines US01"].detail
    erp_status.waits(world.engine, "US01", world.clock.now(), "connection refused", world.clock.now())
    told = findings(tmp_path)["answers US01"]
    assert (told.state, told.detail) == ("warn", "does not answer since 2025-11-24T18:00:00+00:00: connection refused")
    world.engine.dispose()
