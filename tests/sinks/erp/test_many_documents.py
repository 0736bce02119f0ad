"""10,000 documents through 30 % mixed faults: none lost, none doubled, sums equal. And how fast the journal is."""

import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest

from sinks.erp.journal import JournalAdapter
from tests.sinks.erp.conftest import Erps
from tests.sinks.erp.contract.delivery import check_once, deliver, documents, keys, ledger, total
from tests.sinks.ledger.samples import HOUR

COUNT = 10_000
HOURS = 10
GROWN_KIB_MAX = 6_144
"""A key, its digest and its place took a kilobyte each when the journal kept them in memory: 27 MiB."""


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("name", "count"), [("journal", COUNT), ("rest-netsuite", COUNT), ("rest-quickbooks", COUNT)])
def test_none_is_lost_or_doubled(
    erps: Erps, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, count: int
) -> None:
    erp = erps(name)
    made = {HOUR + n: documents(count // HOURS, hour=HOUR + n, cents=1000 * (n + 1)) for n in range(HOURS)}
    with ledger(tmp_path) as world:
        world.book(*(one for batch in made.values() for one in batch), complete_hour=HOUR + HOURS)
        erp.mix_faults(seed=10_000, rate=0.3)
        started_s = time.perf_counter()
        states = deliver(world, erp.adapter(timeout_s=0.3), batch=100, passes=20_000)
        took_s = time.perf_counter() - started_s
        erp.heal()
        assert states == {"POSTED": count}
        check_once(erp, world)
        truth = erp.truth(keys(world))
        positive = total(amount for (entry,) in truth.values() for amount in entry.sums.values() if amount > 0)
        assert positive == total(Decimal(one.amount) for batch in made.values() for one in batch)
    with capsys.disabled():
        sys.stdout.write(f"\n{name}: {count:,} documents through 30 % faults in {took_s:.0f} s\n")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_posters_memory_is_flat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Once it has warmed up on a tenth, the rest of 30,000 single postings takes no more memory."""
    count, days = 30_000, 10
    with ledger(tmp_path) as world:
        for day in range(days):
            made = documents(count // days, hour=HOUR + 24 * day)
            world.book(*made, complete_hour=HOUR + 24 * day + 1)
        del made
        poster = world.poster(JournalAdapter(tmp_path / "books"), batch=100)
        warm = 0
        while (posted := world.states().get("POSTED", 0)) < count:
            assert poster.pass_once()
            warm = warm or (resident_kib() if posted >= count // days else 0)
        grown_kib = resident_kib() - warm
    with capsys.disabled():
        sys.stdout.write(f"\nmemory over {count:,} postings grew by {grown_kib:,} KiB\n")
    assert grown_kib < GROWN_KIB_MAX


def resident_kib() -> int:
    """Return the memory of this process that is not shared with files or paged out."""
    text = Path("/proc/self/status").read_text()
    return next(int(row.split()[1]) for row in text.splitlines() if row.startswith("RssAnon"))


@pytest.mark.slow
def test_the_poster_is_fast_on_the_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ledger(tmp_path) as world:
        world.book(*documents(COUNT))
        poster = world.poster(JournalAdapter(tmp_path / "books"), batch=1000)
        started_s = time.perf_counter()
        while world.states() != {"POSTED": COUNT}:
            assert poster.pass_once()
        rate = COUNT / (time.perf_counter() - started_s)
    with capsys.disabled():
        sys.stdout.write(f"\nposter with journal adapter, ledger included: {rate:,.0f} documents/s\n")
    assert rate > 100  # the machine is shared
