"""Cases 9, 14 and 18: refusals with their reasons, changes planted in the ERP, and the sums of it all."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

from sinks.erp.port import Posted, Posting, Rejected
from tests.flows.poster_world import postings_of
from tests.sinks.erp.contract.cases_booking import book, number
from tests.sinks.erp.contract.delivery import check_once, deliver, documents, keys, ledger, total
from tests.sinks.erp.contract.harness import (
    BAD_ACCOUNT,
    CLOSED_DAY,
    ErpUnderTest,
    day_window,
    fresh_hour,
    lines,
)
from tests.sinks.ledger.samples import HOUR


def broken(erp: ErpUnderTest) -> dict[str, Posting]:
    """Return postings each of which is wrong in one way, by the reason."""
    plain = lines()
    return {
        "unbalanced": erp.posting(lines=(plain[0], replace(plain[1], amount=Decimal("12.33")))),
        "unknown_account": erp.posting(lines=lines(account=BAD_ACCOUNT)),
        "unknown_customer": erp.posting(
            lines=lines(account_role="accounts_receivable", account="1200", customer="x", party="NOBODY")
        ),
        "missing_dimension": erp.posting(lines=lines(dimensions=())),
        "closed_period": erp.posting(posting_date=CLOSED_DAY, accounting_period="2025-01"),
    }


def case_09_refusals_have_reasons_and_stop_nobody_else(erp: ErpUnderTest, folder: Path) -> None:
    adapter = erp.adapter()
    for name, posting in broken(erp).items():
        reason = erp.traits.reasons.get(name, name)
        (outcome,) = book(adapter, posting)
        if reason == "posted":
            assert isinstance(outcome, Posted), (name, outcome)
            continue
        assert isinstance(outcome, Rejected), (name, outcome)
        assert (outcome.reason, bool(outcome.text)) == (reason, True)
        assert erp.truth([posting.key])[posting.key] == []
    if erp.traits.reasons.get("unknown_account") == "posted":
        return  # nothing an hour could be held for
    with ledger(folder) as world:
        world.book(*documents(5), *documents(2, role="shortfall_revenue"), *documents(5))
        assert deliver(world, adapter, batch=12) == {"POSTED": 10, "HELD": 2}
        held = [row for row in postings_of(world) if row.state == "HELD"]
        assert {row.reason for row in held} == {"unknown_account"}
        check_once(erp, world)


def case_14_read_back_finds_what_was_changed(erp: ErpUnderTest, _folder: Path) -> None:
    adapter = erp.adapter()
    hour = fresh_hour()
    batch = [erp.posting(booked_hour=hour) for _ in range(4)]
    for posting in batch:
        number(adapter, posting)
    erp.plant_edit(batch[0].key)
    erp.plant_deletion(batch[1].key)
    doubled = erp.plant_duplicate(batch[2].key)
    read = list(adapter.read_back(day_window(hour)))
    wanted = {posting.key: posting for posting in batch}
    by_key = {posting.key: [entry for entry in read if entry.key == posting.key] for posting in batch}
    assert {entry.key for entry in read} <= set(wanted)
    findings = {
        one: [sorted(entry.lines) == sorted(adapter.expected(wanted[one])) for entry in found]
        for one, found in by_key.items()
    }
    assert findings == {
        batch[0].key: [False],
        batch[1].key: [],
        batch[2].key: [True, True] if doubled else [True],  # a unique key cannot be doubled, not even by hand
        batch[3].key: [True],
    }
    assert len(adapter.lookup([batch[2].key])[batch[2].key]) == (2 if doubled else 1)
    assert doubled is erp.traits.can_plant_duplicates


def case_18_sums_are_equal_after_mixed_faults(erp: ErpUnderTest, folder: Path) -> None:
    made = {hour: documents(12, hour=hour, cents=1000 + hour - HOUR) for hour in (HOUR, HOUR + 1, HOUR + 2)}
    with ledger(folder) as world:
        world.book(*(one for batch in made.values() for one in batch), complete_hour=HOUR + 3)
        erp.mix_faults(seed=18, rate=0.3)
        adapter = erp.adapter(timeout_s=0.6)
        states = deliver(world, adapter, batch=4)
        erp.heal()
        erp.finish_jobs()
        if not erp.traits.settles_alone:  # requests that never arrived are a person's to release
            for row in postings_of(world):
                if row.state == "HELD":
                    world.release(row.key)
            states = deliver(world, erp.adapter(), batch=4)
        assert states == {"POSTED": 36}
        check_once(erp, world)
        truth = erp.truth(keys(world))
        unbilled = next(account for account, amount in adapter.expected(postings_of(world)[0].posting) if amount > 0)
        for hour, batch in made.items():
            of_hour = [row.key for row in postings_of(world) if row.posting.booked_hour == hour]
            booked = total(entry.sums[unbilled] for one in of_hour for entry in truth[one])
            assert booked == total(Decimal(one.amount) for one in batch)
