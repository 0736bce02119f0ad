"""What an ERP said to a posting, as types: an adapter answers with one of these and with nothing else."""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Posted:
    """It is in the books under the ERP's own number. `replayed`: it was there before."""

    number: str
    reference: str = ""
    replayed: bool = False
    tax: Decimal | None = None
    """For an invoice: the tax the ERP computed."""
    draft: bool = False
    """An invoice that waits for a person in the ERP: it is in no balance yet."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The ERP took it and works on it; ask by the job."""

    job: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The ERP said no. In an atomic batch every posting of the batch gets the one answer."""

    reason: str
    """`unbalanced`, `unknown_account`/`_customer`/`_currency`/`_tax`/`_dimension`, `missing_dimension`,
    `missing_tax_mapping`, `closed_period`, `invalid`."""
    text: str
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Conflict:
    """The key is taken by other content: an alarm, nothing was changed."""

    number: str
    digest: str


@dataclass(frozen=True, slots=True)
class NotSent:
    """Provably nothing was sent; the same call may be repeated."""

    why: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """The ERP asks to slow down; nothing was done. `after_s` is its Retry-After, if it gave one."""

    after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may or may not be in the books: only a lookup can tell."""

    why: str


Outcome = Posted | Accepted | Rejected | Conflict | NotSent | Throttled | Unknown
