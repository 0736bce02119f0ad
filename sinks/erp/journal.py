"""The journal adapter: a plain-text double-entry journal in beancount syntax, the embedded default "ERP".

Files in the books directory: `YYYY/YYYY-MM-DD.beancount`, one per booked day (UTC), only ever extended, and
`main.beancount` with the accounts and an include per day, to be opened with fava or checked with `bean-check`.

Guarantee: one entry per key. The same key and content answers with the first number, other content is a conflict.
Unit of parallelism: one submit at a time; a lock file orders several processes on one directory.
If the process dies at any step, the books are whole and pass `bean-check`:
 1. before the accounts are opened in main: nothing changed (a temporary file is ignored and removed).
 2. after it: accounts without entries.
 3. after a day file was replaced: its postings are booked; a lookup finds them. Its include may be missing.
 4. after main includes the day: everything is there. A start adds includes that step 3 left out.
"""

import fcntl
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Final

from core.errors import Unreachable
from sinks.erp import checks
from sinks.erp.journal_balances import all_balances, customer_balances
from sinks.erp.journal_books import Books
from sinks.erp.journal_format import account_name, entry_text, number_text, root_of
from sinks.erp.port import (
    Capabilities,
    Conflict,
    ErpEntry,
    Idempotency,
    Issue,
    MasterData,
    NotSent,
    Outcome,
    Posted,
    Posting,
    PostingLine,
    Record,
    Rejected,
    Unknown,
    Window,
)
from sinks.ledger.times import MS_PER_HOUR, to_datetime

LINES_MAX: Final = 100_000


@dataclass(frozen=True, slots=True)
class _New:
    """A posting to write: its place in the batch, day, and number."""

    index: int
    posting: Posting
    number: int
    day: date


def booked_day(posting: Posting) -> date:
    """Return the UTC day whose file holds the posting."""
    return to_datetime(posting.booked_hour * MS_PER_HOUR).date()


def problem(posting: Posting) -> Rejected | None:
    """Check what a real ERP would check; return the rejection, or None."""
    found = checks.problem(posting, LINES_MAX)
    role = next((line.account_role for line in posting.lines if root_of(line.account_role) is None), None)
    if found is None and role is not None:
        return Rejected("unknown_account", f"posting {posting.key}: unknown account role {role!r}")
    return found


class JournalAdapter:
    """Books postings into text files."""

    name = "journal"
    capabilities = Capabilities(
        idempotency=Idempotency.UNIQUE_KEY, atomic_batch=False, postings_max=10_000, lines_max=LINES_MAX
    )

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._books = Books(directory)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the directory's lock and know the files as they are now."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _unreachable(self._directory, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                self._books.refresh()
            except OSError as error:
                raise _unreachable(self._directory, error) from error
            yield
        finally:
            os.close(descriptor)

    def preflight(self, postings: Sequence[Posting]) -> list[Issue]:
        """Check balance, accounts and size."""
        found = ((posting, problem(posting)) for posting in postings)
        return [Issue(posting.key, issue.reason, issue.text) for posting, issue in found if issue is not None]

    def submit(self, postings: Sequence[Posting], attempt_id: str) -> list[Outcome]:
        """Book a batch, day by day; each day file is replaced once."""
        outcomes: list[Outcome] = [NotSent("not reached") for _ in postings]
        try:
            with self._locked():
                new = self._decide(postings, outcomes)
                self._write(new, outcomes)
        except Unreachable as error:
            return [NotSent(str(error)) if isinstance(one, NotSent) else one for one in outcomes]
        return outcomes

    def _decide(self, postings: Sequence[Posting], outcomes: list[Outcome]) -> list[_New]:
        """Answer what is known or wrong; number the rest by day, so that numbers follow the files."""
        fresh: dict[str, Posting] = {}
        places: list[tuple[date, int, Posting]] = []
        for index, posting in enumerate(postings):
            known = self._books.find(posting.key)
            rejected = problem(posting)
            if len(known) > 1:
                outcomes[index] = Unknown(f"the journal has {len(known)} entries of {posting.key}: the lookup tells")
            elif known:
                same = known[0].digest == posting.digest
                number = number_text(known[0].number)
                outcomes[index] = Posted(number, replayed=True) if same else Conflict(number, known[0].digest)
            elif rejected is not None:
                outcomes[index] = rejected
            elif posting.key in fresh:
                outcomes[index] = NotSent("the same key is in this batch already")
            else:
                fresh[posting.key] = posting
                places.append((booked_day(posting), index, posting))
        places.sort(key=lambda place: place[:2])
        first = self._books.number_last + 1
        return [_New(index, posting, first + step, day) for step, (day, index, posting) in enumerate(places)]

    def _write(self, new: Sequence[_New], outcomes: list[Outcome]) -> None:
        if not new:
            return
        accounts = {account_name(one.posting.entity, line): line.account for one in new for line in one.posting.lines}
        days: dict[date, list[_New]] = {}
        for one in new:
            days.setdefault(one.day, []).append(one)
        self._books.open_accounts(accounts)
        for day, entries in days.items():
            text = "".join(entry_text(one.posting, one.number) for one in entries)
            index = [(one.posting.key, one.number, one.posting.digest) for one in entries]
            try:
                self._books.append(day, text, index)
                self._books.include([day])
            except (OSError, Unreachable) as error:
                # The rename may have happened: only a lookup can tell. Later days were not begun.
                for one in entries:
                    outcomes[one.index] = Unknown(f"writing {day} failed: {error}")
                self._books.forget()
                return
            for one in entries:
                outcomes[one.index] = Posted(number_text(one.number), reference=str(self._books.path(day)))

    def lookup(self, keys: Sequence[str]) -> dict[str, list[ErpEntry]]:
        """Find entries by key, with their lines."""
        with self._locked():
            found: dict[str, list[ErpEntry]] = {key: [] for key in keys}
            days = {place.day for key in keys for place in self._books.find(key)}
            for day in sorted(days):
                for entry in self._books.read(day):
                    if entry.key in found:
                        found[entry.key].append(entry)
            return found

    def poll(self, jobs: Sequence[str]) -> list[Outcome]:
        """Answer that there are no jobs: the journal books at once."""
        return [Unknown(f"the journal has no jobs, asked for {job}") for job in jobs]

    def reverse(self, entry: ErpEntry, posting: Posting) -> Outcome:
        """Book the opposite entry; refuse one that is not the opposite."""
        return checks.opposite_problem(entry, posting, self.expected) or self.submit([posting], posting.key)[0]

    def sweep(self) -> int:
        """Return 0: the journal books in one step, and leaves nothing beside the books."""
        return 0

    def read_back(self, window: Window) -> Iterator[ErpEntry]:
        """Read the entries of those booked days, in file order."""
        with self._locked():
            days = [day for day in self._books.days() if window.first <= day <= window.last]
        for day in days:
            yield from self._books.read(day)

    def expected(self, posting: Posting) -> tuple[tuple[str, Decimal], ...]:
        """Return the lines as the files name them."""
        return tuple((account_name(posting.entity, line), line.signed) for line in posting.lines)

    def balances(self) -> dict[tuple[str, str], Decimal]:
        """Sum every entry of the files, also those written by hand."""
        with self._locked():
            return all_balances(self._directory)

    def named_customer(self, posting: Posting, line: PostingLine) -> str:
        """Return our own customer id: the files have it per line, or for the whole entry."""
        return posting.customer or line.customer or ""

    def customer_balances(
        self, accounts: Collection[str], until: date | None
    ) -> dict[tuple[str, str, str], Decimal] | None:
        """Sum every entry of the files by the customer in its metadata."""
        with self._locked():
            return customer_balances(self._directory, accounts, until)

    def master_data(self) -> MasterData:
        """Return the accounts the books have; the journal takes any account, party and period."""
        with self._locked():
            accounts = self._books.accounts
        return MasterData(tuple(Record("account", code, name) for name, code in sorted(accounts.items())))


def _unreachable(directory: Path, error: OSError) -> Unreachable:
    message = (
        f"the journal directory {directory} cannot be used: {error}. Check that it exists and is writable, or set"
        " METERBRIDGE_POSTER__JOURNAL_DIRECTORY"
    )
    return Unreachable(message)
