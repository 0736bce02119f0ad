"""An ERP in memory that enforces unique keys, and misbehaves where a script says so."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from core.errors import Unreachable
from sinks.erp.port import (
    Accepted,
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
    Rejected,
    Throttled,
    Unknown,
    Window,
)

UNIQUE = Capabilities(idempotency=Idempotency.UNIQUE_KEY, postings_max=50)


class Died(BaseException):
    """The poster's process died in this call."""


Fault = str
"""`ok`, `lost` (booked, answer lost), `dropped` (request lost), `not_sent`, `throttled`, `died_before`, `died_after`,
`late` (booked when `settle` is called), `raises`, `job`, `unreachable` (for lookups)."""


@dataclass
class MemoryErp:
    """Books by key; every call takes the next fault of the script, then `ok`."""

    capabilities: Capabilities = UNIQUE
    name: str = "memory"
    script: list[Fault] = field(default_factory=list)
    lookup_script: list[Fault] = field(default_factory=list)
    reverse_script: list[Fault] = field(default_factory=list)
    bad_keys: dict[str, str] = field(default_factory=dict)
    retry_after_s: float | None = None
    before: Callable[[], None] = lambda: None
    before_preflight: Callable[[], None] = lambda: None
    entries: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    batches: list[list[str]] = field(default_factory=list)
    lookups: int = 0
    sweeps: int = 0
    late: list[Posting] = field(default_factory=list)
    jobs: dict[str, Posting] = field(default_factory=dict)
    issues: dict[str, str] = field(default_factory=dict)
    """Reason by posting key that preflight gives."""
    down: bool = False
    master: MasterData = field(default_factory=lambda: MasterData(()))
    booked: dict[str, Posting] = field(default_factory=dict)

    def preflight(self, postings: Sequence[Posting]) -> list[Issue]:
        self.before_preflight()
        self._ask()
        return [Issue(one.key, self.issues[one.key], "preflight says so") for one in postings if one.key in self.issues]

    def _ask(self) -> None:
        if self.down:
            message = "the ERP is down"
            raise Unreachable(message)

    def _book(self, posting: Posting) -> Outcome:
        if reason := self.bad_keys.get(posting.key):
            return Rejected(reason, f"{reason} in the ERP", raw="<raw>")
        known = self.entries.get(posting.key)
        if known and self.capabilities.idempotency is not Idempotency.SEARCH_ONLY:
            number, digest = known[0]
            return Posted(number, replayed=True) if digest == posting.digest else Conflict(number, digest)
        number = f"E-{sum(len(one) for one in self.entries.values()) + 1}"
        self.entries.setdefault(posting.key, []).append((number, posting.digest))
        self.booked[posting.key] = posting
        return Posted(number)

    def _book_all(self, batch: Sequence[Posting]) -> list[Outcome]:
        bad = next((self.bad_keys[one.key] for one in batch if one.key in self.bad_keys), None)
        if self.capabilities.atomic_batch and bad is not None:
            return [Rejected(bad, "one of the batch is bad") for _ in batch]
        return [self._book(one) for one in batch]

    def submit(self, postings: Sequence[Posting], attempt_id: str) -> list[Outcome]:
        self.before()
        if self.down:
            return [NotSent("connection refused") for _ in postings]
        self.batches.append([one.key for one in postings])
        fault = self.script.pop(0) if self.script else "ok"
        unclear: list[Outcome] = [Unknown(fault) for _ in postings]
        match fault:
            case "ok":
                return self._book_all(postings)
            case "lost":
                self._book_all(postings)
                return unclear
            case "dropped":
                return unclear
            case "late":
                self.late.extend(postings)
                return unclear
            case "not_sent":
                return [NotSent("connection refused") for _ in postings]
            case "throttled":
                return [Throttled(self.retry_after_s) for _ in postings]
            case "raises":
                self._book_all(postings)
                message = "a bug in the adapter"
                raise ValueError(message)
            case "job":
                self.jobs.update({f"job-{one.key}": one for one in postings})
                return [Accepted(f"job-{one.key}") for one in postings]
            case "died_after":
                self._book_all(postings)
                raise Died
            case _:
                raise Died

    def settle(self) -> None:
        """Let requests whose answer was lost take effect now."""
        for one in self.late:
            self._book(one)
        self.late.clear()

    def lookup(self, keys: Sequence[str]) -> dict[str, list[ErpEntry]]:
        self.lookups += 1
        self._ask()
        if self.lookup_script and self.lookup_script.pop(0) == "unreachable":
            message = "the ERP is down"
            raise Unreachable(message)
        return {key: [ErpEntry(key, *entry) for entry in self.entries.get(key, [])] for key in keys}

    def poll(self, jobs: Sequence[str]) -> list[Outcome]:
        return [self._book(self.jobs[job]) for job in jobs]

    def reverse(self, entry: ErpEntry, posting: Posting) -> Outcome:
        assert posting.reverses == entry.key
        fault = self.reverse_script.pop(0) if self.reverse_script else "ok"
        match fault:
            case "not_sent":
                return NotSent(fault)
            case "throttled":
                return Throttled()
            case "dropped":
                return Unknown(fault)
            case "lost":
                self._book(posting)
                return Unknown(fault)
        return self._book(posting)

    def sweep(self) -> int:
        self._ask()
        self.sweeps += 1
        return 0

    def read_back(self, window: Window) -> Iterator[ErpEntry]:
        for key, found in self.entries.items():
            for number, digest in found:
                yield ErpEntry(key, number, digest)

    def expected(self, posting: Posting) -> tuple[tuple[str, Decimal], ...]:
        return tuple((line.account, line.signed) for line in posting.lines)

    def balances(self) -> dict[tuple[str, str], Decimal]:
        self._ask()
        totals: dict[tuple[str, str], Decimal] = {}
        for one in self.booked.values():
            for account, amount in self.expected(one):
                totals[account, one.currency] = totals.get((account, one.currency), Decimal(0)) + amount
        return totals

    def named_customer(self, posting: Posting, line: PostingLine) -> str:
        return line.party or ""

    def customer_balances(
        self, accounts: Collection[str], until: date | None
    ) -> dict[tuple[str, str, str], Decimal] | None:
        self._ask()
        totals: dict[tuple[str, str, str], Decimal] = {}
        for one in self.booked.values():
            for line in one.lines:
                if line.account in accounts and (until is None or one.posting_date <= until):
                    place = (line.account, one.currency, line.party or "")
                    totals[place] = totals.get(place, Decimal(0)) + line.signed
        return totals

    def master_data(self) -> MasterData:
        self._ask()
        return self.master
