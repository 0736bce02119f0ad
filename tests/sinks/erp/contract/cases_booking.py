"""Cases 1 to 4, 12, 13, 16: what is booked, once, exactly, and read back."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from sinks.erp.port import (
    Conflict,
    ErpPort,
    Idempotency,
    NotSent,
    Outcome,
    Posted,
    Posting,
    Rejected,
    Throttled,
    Unknown,
)
from tests.sinks.erp.contract.harness import (
    ErpUnderTest,
    day_window,
    fresh_hour,
    lines,
    opposite,
    sums,
    wide_window,
)


def book(adapter: ErpPort, *batch: Posting) -> list[Outcome]:
    """Submit and, where the ERP works in jobs, ask until they are done."""
    outcomes = adapter.submit(batch, f"{batch[0].key}-1")
    for _ in range(20):
        waiting = {index: getattr(one, "job", "") for index, one in enumerate(outcomes) if getattr(one, "job", "")}
        if not waiting:
            break
        for index, answer in zip(waiting, adapter.poll(list(waiting.values())), strict=True):
            outcomes[index] = answer
    return outcomes


def number(adapter: ErpPort, posting: Posting) -> str:
    """Book one posting and return its number; what tells nothing is looked up and sent again, as the poster does."""
    for _ in range(40):
        (outcome,) = book(adapter, posting)
        if isinstance(outcome, Posted):
            return outcome.number
        assert isinstance(outcome, Unknown | Throttled | NotSent), outcome
        found = adapter.lookup([posting.key])[posting.key]
        assert len(found) <= 1
        if found:
            return found[0].number
        time.sleep(0.05)
    pytest.fail(f"not booked: {outcome}")


def case_01_books_exact_lines(erp: ErpUnderTest, _folder: Path) -> None:
    adapter = erp.adapter()
    two, wide = erp.posting("1234567.89"), erp.posting(lines=lines("0.01", 199))
    numbers = [number(adapter, two), number(adapter, wide)]
    assert len(set(numbers)) == 2
    found = adapter.lookup([two.key, wide.key])
    truth = erp.truth([two.key, wide.key])
    for posting, name in zip((two, wide), numbers, strict=True):
        (entry,), (true,) = found[posting.key], truth[posting.key]
        assert (entry.number, entry.digest, entry.currency) == (name, posting.digest, "USD")
        read: dict[str, Decimal] = {}
        for account, amount in entry.lines:
            read[account] = read.get(account, Decimal(0)) + amount
        assert read == true.sums == sums(posting, adapter)
        assert (true.number, true.lines) == (name, len(posting.lines))
    assert adapter.preflight([two, wide]) == []


def case_01_books_mapped_codes_and_no_names_of_ours(erp: ErpUnderTest, _folder: Path) -> None:
    adapter = erp.adapter()
    coded = lines("5.00", dimensions=(("charge", "input"), ("tax_category", "saas"), ("model", "left-out")),
                  erp_dimensions=(("Product", "P-77"), ("", ""), ("Model", "")), tax_code="VAT19")  # fmt: skip
    posting = erp.posting(lines=(coded[0], replace(coded[1], erp_dimensions=(("Product", "P-78"),))))
    assert adapter.preflight([posting]) == []
    name = number(adapter, posting)
    assert number(adapter, Posting.from_json(posting.to_json())) == name
    (true,) = erp.truth([posting.key])[posting.key]
    assert (true.number, true.sums) == (name, sums(posting, adapter))
    assert all(code in true.texts for code in ("P-77", "P-78"))
    assert not any(ours in true.texts for ours in ("input", "saas", "left-out"))


def case_02_keeps_the_currency_and_its_scale(erp: ErpUnderTest, _folder: Path) -> None:
    adapter = erp.adapter()
    yen = erp.posting(currency="JPY", lines=lines("1500"))
    dinar = erp.posting(currency="KWD", lines=lines("1.234"))
    for posting in (yen, dinar):
        if not erp.traits.other_currencies:  # this ERP books its own currency only, and must not convert in silence
            (outcome,) = adapter.submit([posting], "a")
            assert isinstance(outcome, Rejected)
            assert outcome.reason == "unknown_currency"
            assert erp.truth([posting.key])[posting.key] == []
            continue
        number(adapter, posting)
        (entry,) = adapter.lookup([posting.key])[posting.key]
        assert entry.currency == posting.currency
        assert sorted(entry.lines) == sorted(adapter.expected(posting))
    for posting in (erp.posting("12.345"), erp.posting(currency="JPY", lines=lines("1500.5"))):
        (outcome,) = adapter.submit([posting], "a")
        assert isinstance(outcome, Rejected), outcome
        assert erp.truth([posting.key])[posting.key] == []


def case_03_a_replay_is_booked_once(erp: ErpUnderTest, _folder: Path) -> None:
    adapter = erp.adapter()
    posting = erp.posting()
    answers = [number(adapter, posting) for _ in range(4)]
    assert len(set(answers)) == 1
    assert len(erp.truth([posting.key])[posting.key]) == 1
    together = erp.posting()
    if not erp.traits.refuses_doubles:
        # Only the poster's lease keeps two writers apart here; the adapter must not claim more.
        assert adapter.capabilities.idempotency in (Idempotency.SEARCH_ONLY, Idempotency.ASYNC_JOB)
        assert not adapter.capabilities.two_phase
        return
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: number(one, together), [erp.adapter() for _ in range(4)]))
    (true,) = erp.truth([together.key])[together.key]
    assert set(found) == {true.number}


def case_04_other_content_is_a_conflict(erp: ErpUnderTest, _folder: Path) -> None:
    adapter = erp.adapter()
    posting = erp.posting()
    first = number(adapter, posting)
    before = erp.truth([posting.key])
    (outcome,) = book(adapter, replace(posting, lines=lines("99.99")))
    assert outcome == Conflict(first, posting.digest)
    assert erp.truth([posting.key]) == before


def case_12_racing_writers_book_each_key_once(erp: ErpUnderTest, folder: Path) -> None:
    batch = [erp.posting(f"{n}.00") for n in range(1, 13)]
    adapter = erp.adapter()
    if erp.traits.duplicate_key_error is not None:
        # The ERP says that the key is taken: that is no rejection, only a lookup tells.
        erp.faults("answer", reply=erp.traits.duplicate_key_error)
        (outcome,) = adapter.submit([batch[0]], "a")
        assert isinstance(outcome, Unknown), outcome
    if not erp.traits.refuses_doubles:
        return  # as in case 3: only the lease keeps two writers apart

    def race(one: ErpPort) -> list[str]:
        outcomes = one.submit(batch, "a")
        assert all(not isinstance(outcome, Rejected | Conflict) for outcome in outcomes), outcomes
        return [number(one, posting) for posting in batch]

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(race, [erp.adapter() for _ in range(3)]))
    truth = erp.truth([posting.key for posting in batch])
    assert [len(found) for found in truth.values()] == [1] * len(batch)
    assert all(answer == [truth[posting.key][0].number for posting in batch] for answer in answers)


def case_13_a_reversal_nets_to_zero_once(erp: ErpUnderTest, _folder: Path) -> None:
    adapter = erp.adapter()
    posting = erp.posting("55.55")
    number(adapter, posting)
    (entry,) = adapter.lookup([posting.key])[posting.key]
    assert isinstance(adapter.reverse(entry, erp.posting("55.55")), Rejected)
    assert isinstance(adapter.reverse(entry, opposite(posting, lines=lines("1.00"))), Rejected)
    back = opposite(posting)
    first = adapter.reverse(entry, back)
    for job in [first.job] if hasattr(first, "job") else []:
        assert all(not isinstance(one, Rejected) for _ in range(3) for one in adapter.poll([job]))
    assert number(adapter, back) == number(adapter, back)
    again = adapter.reverse(entry, back)
    assert isinstance(again, Posted)
    truth = erp.truth([posting.key, back.key])
    assert [len(found) for found in truth.values()] == [1, 1]
    totals: dict[str, Decimal] = {}
    for (one,) in truth.values():
        for account, amount in one.sums.items():
            totals[account] = totals.get(account, Decimal(0)) + amount
    assert set(totals.values()) == {Decimal(0)}


def case_16_reads_all_pages(erp: ErpUnderTest, _folder: Path) -> None:
    adapter = erp.adapter()
    page = erp.traits.pages or 4
    booked: list[str] = []
    hour = fresh_hour()
    for more in (page - 1, 1, 1, page - 1):  # one less than a page, a page, one more, two pages
        for _ in range(more):
            posting = erp.posting(booked_hour=hour)
            number(adapter, posting)
            booked.append(posting.key)
        read = [entry.key for entry in adapter.read_back(day_window(hour))]
        assert sorted(read) == sorted(booked)
    assert list(adapter.read_back(day_window(fresh_hour()))) == []
    assert set(booked) <= {entry.key for entry in adapter.read_back(wide_window())}
