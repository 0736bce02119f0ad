"""What the contract suite needs of an ERP under test, whatever its adapter."""

import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

from sinks.erp.port import Capabilities, ErpPort, Posting, PostingLine, Window
from sinks.ledger.times import MS_PER_HOUR, to_datetime
from tests.sinks.erp.fault_proxy import FaultName, Reply
from tests.sinks.ledger.samples import HOUR, key

_NUMBERS = itertools.count(random.SystemRandom().randrange(1 << 40) << 20)
_DAYS = itertools.count(1)
BAD_ACCOUNT: Final = "9999"
CLOSED_DAY: Final = date(2025, 1, 15)


def fresh(count: int = 1) -> int:
    """Return the first of `count` numbers that no other test of any session uses."""
    first = next(_NUMBERS)
    for _ in range(count - 1):
        next(_NUMBERS)
    return first


def fresh_hour() -> int:
    """Return a booked hour on a day of its own, so that read-backs of a day see one test's entries."""
    return HOUR + 24 * next(_DAYS)


def day_window(hour: int) -> Window:
    """Return the window of the day of a booked hour."""
    day = to_datetime(hour * MS_PER_HOUR).date()
    return Window(day, day)


def wide_window() -> Window:
    return Window(date(2025, 1, 1), date(2025, 1, 1) + timedelta(days=20_000))


@dataclass(frozen=True)
class TrueEntry:
    """An entry as it is in the ERP's own storage, read without the adapter. Lines are summed by account."""

    key: str
    number: str
    sums: dict[str, Decimal]
    lines: int
    texts: str = ""
    """What stands there about the lines: dimensions, in whatever place this ERP has for them."""


@dataclass(frozen=True)
class Traits:
    """How this ERP differs where the suite expects different outcomes, each said explicitly."""

    is_server: bool = True
    """A process over HTTP that can be frozen and killed."""
    refuses_doubles: bool = True
    """A key sent twice is booked once by the ERP itself."""
    books_late_duplicates: bool = False
    """A request that the network delivers twice is booked twice: only an alarm can follow."""
    other_currencies: bool = True
    reasons: dict[str, str] = field(default_factory=dict)
    """What a broken posting gets, where it is not what its name says; `posted` if this ERP does not check it."""
    batch_of_one_transaction: bool = False
    """A killed server keeps all of a call or nothing."""
    can_plant_duplicates: bool = True
    pages: int = 0
    """Entries of one page of a read-back; 0: there are no pages."""
    number_after_lookup: bool = False
    """Parallel repeats may get an unknown outcome first; a lookup then gives the one number."""
    duplicate_key_error: Reply | None = None
    """The answer that says that the key is taken."""
    settles_alone: bool = True
    """After an unknown outcome nothing found, the poster may send the same key again."""


class ErpUnderTest(ABC):
    """One ERP, real, with a faulty network in front of it."""

    name: str
    traits: Traits

    @property
    def capabilities(self) -> Capabilities:
        return self.adapter().capabilities

    @abstractmethod
    def adapter(self, **changes: Any) -> ErpPort:
        """Return a new adapter behind the faulty network."""

    @abstractmethod
    def truth(self, keys: Sequence[str]) -> dict[str, list[TrueEntry]]:
        """Return what the ERP's storage has of these keys."""

    # --- the network ---------------------------------------------------------------------------------

    @abstractmethod
    def faults(self, *names: FaultName, reply: Reply | None = None) -> None:
        """Let the next changing requests meet these faults."""

    @abstractmethod
    def mix_faults(self, seed: int, rate: float) -> None:
        """Let changing requests meet mixed faults from now on."""

    @abstractmethod
    def heal(self) -> None:
        """Let everything through."""

    @abstractmethod
    def release(self) -> None:
        """Let held requests take effect."""

    @abstractmethod
    def sent(self) -> int:
        """Return how many changing requests were sent so far."""

    # --- the server ----------------------------------------------------------------------------------

    @abstractmethod
    def break_credentials(self) -> str:
        """Let the credentials expire; return the secret that is sent from now on."""

    @abstractmethod
    def renew_credentials(self) -> None: ...

    @abstractmethod
    def plant_edit(self, key_: str) -> None:
        """Change an amount of a booked entry behind our back."""

    @abstractmethod
    def plant_deletion(self, key_: str) -> None: ...

    @abstractmethod
    def plant_duplicate(self, key_: str) -> bool:
        """Copy an entry; return False if the ERP's own storage refuses it."""

    def secret(self) -> str:
        """Return a secret that must not be seen anywhere; empty if there is none."""
        return ""

    @abstractmethod
    def close(self) -> None:
        """End what was started."""

    def finish_jobs(self) -> None:
        """Let the ERP do the jobs it accepted, if it works in jobs."""
        return

    def freeze(self) -> None:
        raise NotImplementedError

    def thaw(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    # --- postings ------------------------------------------------------------------------------------

    def posting(self, amount: str = "12.34", *, count: int = 1, **changes: Any) -> Posting:
        """Return a balanced posting with a fresh key."""
        number = fresh()
        values: dict[str, Any] = {
            "key": key(number),
            "entity": "US01",
            "company": "US01",
            "currency": "USD",
            "accounting_period": "2025-11",
            "posting_date": date(2025, 11, 24),
            "booked_hour": HOUR,
            "kind": "journal",
            "description": f"Usage {number}",
            "lines": lines(amount, count),
            "document_keys": (key(number + 1),),
        }
        return Posting(**(values | changes))


def lines(amount: str = "12.34", count: int = 1, **changes: Any) -> tuple[PostingLine, ...]:
    """Return `count` debits of that amount and a credit of their sum; `changes` are for the debits."""
    values: dict[str, Any] = {"dimensions": (("charge", "input"),)}
    debit = {"account_role": "unbilled_receivable", "account": "1150"} | values | changes
    total = Decimal(amount) * count
    return (
        *(PostingLine(side="debit", amount=Decimal(amount), **debit) for _ in range(count)),
        PostingLine("usage_revenue", "4001", "credit", total, dimensions=(("charge", "input"),)),
    )


def sums(posting: Posting, adapter: ErpPort) -> dict[str, Decimal]:
    """Return what a posting adds to each account, as the ERP names it."""
    found: dict[str, Decimal] = {}
    for account, amount in adapter.expected(posting):
        found[account] = found.get(account, Decimal(0)) + amount
    return found


def opposite(posting: Posting, **changes: Any) -> Posting:
    """Return the posting that takes another one back."""
    number = fresh()
    swapped = tuple(
        PostingLine(
            line.account_role,
            line.account,
            "credit" if line.side == "debit" else "debit",
            line.amount,
            dimensions=line.dimensions,
        )
        for line in posting.lines
    )
    values = {name: getattr(posting, name) for name in Posting.__dataclass_fields__}
    mine = {"key": key(number), "lines": swapped, "kind": "reversal", "reverses": posting.key}
    return Posting(**(values | mine | changes))
