"""Read-back: edits, deletions, copies and strangers made by hand in the books are found and named."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from sinks.erp.journal import JournalAdapter
from sinks.erp.port import Outcome, Posting, Unknown
from sinks.ledger import postings, read_back
from sinks.ledger.read_back import Result
from tests.flows.poster_world import BY_CUSTOMER, World, many, postings_of
from tests.sinks.ledger.samples import HOUR, entity

NOW = datetime(2025, 11, 25, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    is_lite = request.param == "sqlite"
    made = World(f"sqlite:///{tmp_path / 'ledger.sqlite'}" if is_lite else request.getfixturevalue("postgres_url"))
    made.configure(BY_CUSTOMER, entity("DE01"))
    made.book(*many(4), *many(2, 10, booked_hour=HOUR + 24, entity="DE01"), complete_hour=HOUR + 25)
    made.once(erp=JournalAdapter(tmp_path / "books"))
    yield made
    made.engine.dispose()


def check(world: World, directory: Path, names: tuple[str, ...] = ("US01", "DE01")) -> Result:
    adapter = JournalAdapter(directory / "books")
    days = read_back.days_of(world.engine, "journal", 0, 10**9)
    return read_back.read_back(world.engine, adapter, names, days, NOW)


def day_file(directory: Path) -> Path:
    return next((directory / "books").glob("2025/2025-11-24.beancount"))


def test_untouched_books_are_reconciled_day_by_day(world: World, tmp_path: Path) -> None:
    assert read_back.days_of(world.engine, "journal", 0, 10**9) == [date(2025, 11, 24), date(2025, 11, 25)]
    assert read_back.days_of(world.engine, "journal", HOUR + 1, 10**9) == [date(2025, 11, 25)]
    assert read_back.days_of(world.engine, "other", 0, 10**9) == []
    result = check(world, tmp_path)
    assert (result.compared, result.reconciled, result.findings) == (5, 5, [])
    assert world.states() == {"RECONCILED": 5}
    assert check(world, tmp_path, ("DE01",)).compared == 1  # the others' entries are no strangers
    assert world.exceptions() == []


def test_an_edited_amount_a_deletion_and_a_copy_are_found_and_mended_again(world: World, tmp_path: Path) -> None:
    path = day_file(tmp_path)
    text = path.read_text()
    edited, deleted, copied, _ = [row for row in postings_of(world) if row.posting.entity == "US01"]
    blocks = {row.key: next(one for one in text.split("\n\n") if row.key in one) for row in (edited, deleted, copied)}
    changed = text.replace(blocks[edited.key], blocks[edited.key].replace("12.34 USD", "12.35 USD"))
    changed = changed.replace(blocks[deleted.key] + "\n\n", "")
    changed = changed.replace(blocks[copied.key], blocks[copied.key] + "\n\n" + blocks[copied.key])
    path.write_text(changed)
    result = check(world, tmp_path)
    found = {one.identity: (one.kind, one.ours, one.erp) for one in result.findings}
    assert found == {
        edited.key: (
            "erp_edited",
            "Assets:Unbilled-Receivable:US01-1150 12.34, Income:Usage-Revenue:US01-4001 -12.34",
            "Assets:Unbilled-Receivable:US01-1150 12.35, Income:Usage-Revenue:US01-4001 -12.35",
        ),
        deleted.key: ("erp_deleted", deleted.number, "no entry"),
        copied.key: ("erp_duplicated", copied.number, f"{copied.number}, {copied.number}"),
    }
    assert world.states() == {"RECONCILED": 2, "MISMATCHED": 3}
    assert sorted(kind for kind, _ in world.exceptions()) == ["erp_deleted", "erp_duplicated", "erp_edited"]
    rows = {row[0]: row[2:] for row in read_back.balances(world.engine, *_books(tmp_path), NOW)}
    assert rows["Assets:Unbilled-Receivable:US01-1150"] == (Decimal("49.36"), Decimal("49.37"))
    assert "erp_balance" in [kind for kind, _ in world.exceptions()]
    path.write_text(text)
    assert check(world, tmp_path).is_clean
    assert all(ours == theirs for *_, ours, theirs in read_back.balances(world.engine, *_books(tmp_path), NOW))
    assert world.states() == {"RECONCILED": 5}
    assert world.exceptions() == []


def _books(directory: Path) -> tuple[JournalAdapter, list[str]]:
    return JournalAdapter(directory / "books"), ["US01", "DE01"]


@pytest.mark.parametrize(
    ("before", "after", "cause"),
    [
        ('number: "J-0000000', 'number: "J-1000000', "the number was edited in the ERP"),
        ("2025-11-24 *", "2025-11-23 *", "the date was edited in the ERP"),
        ("USD", "EUR", "the currency was edited in the ERP"),
        ('digest: "', 'digest: "0', "the digest was edited in the ERP"),
        ("Usage-Revenue:US01-4001", "Usage-Revenue:US01-4002", "an amount or account was edited in the ERP"),
    ],
)
def test_each_kind_of_edit_is_named(world: World, tmp_path: Path, before: str, after: str, cause: str) -> None:
    path = day_file(tmp_path)
    first, rest = path.read_text().split("\n\n", 2)[1:]
    path.write_text(path.read_text().replace(first, first.replace(before, after)))
    assert rest
    (finding,) = check(world, tmp_path).findings
    assert (finding.kind, finding.cause) == ("erp_edited", cause)


def test_strangers_and_entries_of_postings_that_are_not_sent_are_raised(world: World, tmp_path: Path) -> None:
    path = day_file(tmp_path)
    text = path.read_text()
    block = text.split("\n\n")[1]
    sent = next(row for row in postings_of(world) if row.key in block)
    path.write_text(text + block.replace(sent.key, "A" * 16).replace(sent.number, "J-00000099") + "\n\n")
    (finding,) = check(world, tmp_path).findings
    assert (finding.kind, finding.identity, finding.erp) == ("erp_unknown_entry", "J-00000099", "key AAAAAAAAAAAAAAAA")
    world.book(*many(1, 30, booked_hour=HOUR + 2, accounting_period="2025-12"), complete_hour=HOUR + 25)
    poster = world.poster()
    world.erp.down = True
    poster.pass_once()
    (waits,) = [row for row in postings_of(world) if row.state == "PENDING"]
    path.write_text(text + block.replace(sent.key, waits.key).replace(sent.number, "J-00000099") + "\n\n")
    (finding,) = check(world, tmp_path).findings
    assert (finding.kind, finding.identity, finding.ours) == ("erp_unexpected", waits.key, "PENDING")
    row = postings.get(world.engine, waits.key)
    assert row is not None
    assert row.state == "PENDING"


class Silent(JournalAdapter):
    """A journal whose answers get lost."""

    def submit(self, postings: Sequence[Posting], attempt_id: str) -> list[Outcome]:
        return [Unknown("lost") for _ in super().submit(postings, attempt_id)]


def test_a_conflict_and_a_duplicate_go_on_once_they_are_corrected_in_the_erp(world: World, tmp_path: Path) -> None:
    before = {row.key for row in postings_of(world)}
    world.book(*many(3, 40, booked_hour=HOUR + 30), complete_hour=HOUR + 31)
    world.poster(erp=Silent(tmp_path / "books")).pass_once()
    world.clock.sleep(120)  # its lease ends with it
    copied, changed, removed = [row.key for row in postings_of(world) if row.key not in before]
    path = tmp_path / "books/2025/2025-11-25.beancount"
    good = path.read_text()
    blocks = {key: next(one for one in good.split("\n\n") if key in one) for key in (copied, changed, removed)}
    text = good.replace(blocks[copied], blocks[copied] + "\n\n" + blocks[copied])
    for key in (changed, removed):
        text = text.replace(blocks[key], blocks[key].replace('digest: "', 'digest: "0'))
    path.write_text(text)
    world.once(erp=JournalAdapter(tmp_path / "books"))
    assert world.states() == {"POSTED": 5, "CONFLICT": 2, "DUPLICATED": 1}
    assert {one.identity: one.kind for one in check(world, tmp_path).findings} == {
        copied: "erp_duplicated", changed: "erp_edited", removed: "erp_edited"
    }  # fmt: skip
    assert (world.states()["CONFLICT"], world.states()["DUPLICATED"]) == (2, 1)  # not corrected yet

    path.write_text(good.replace(blocks[removed] + "\n\n", ""))
    assert check(world, tmp_path).is_clean
    assert world.states() == {"RECONCILED": 5, "UNKNOWN": 3}
    assert world.exceptions() == []
    world.once(erp=JournalAdapter(tmp_path / "books"))
    assert check(world, tmp_path).is_clean
    assert world.states() == {"RECONCILED": 8}
    text = path.read_text()
    assert [text.count(f'key: "{key}"') for key in (copied, changed, removed)] == [1, 1, 1]
