"""What both Tryton adapters do the same way: one company of one database, its accounts, parties and periods."""

import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

import httpx

from config.erp_options import TrytonOptions
from sinks.erp.port import MasterData, Outcome, Posting, PostingLine, Unknown
from sinks.erp.tryton_client import TrytonClient
from sinks.erp.tryton_master import TrytonMaster

LINES_MAX: Final = 1000
PAGE: Final = 200
"""Entries of one call of a read-back."""


class TrytonBase:
    """The connection to one company, and what needs no more than its master data."""

    def __init__(
        self,
        options: TrytonOptions,
        company: str,
        *,
        transport: httpx.BaseTransport | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
        page_entries: int = PAGE,
    ) -> None:
        self._options = options
        self._page = page_entries
        self._client = TrytonClient(options, company, transport)
        self._master = TrytonMaster(self._client, monotonic_s)

    def poll(self, jobs: Sequence[str]) -> list[Outcome]:
        """Answer that there are no jobs: Tryton books at once."""
        return [Unknown(f"Tryton has no jobs, asked for {job}") for job in jobs]

    def expected(self, posting: Posting) -> tuple[tuple[str, Decimal], ...]:
        """Return the lines with Tryton's account codes."""
        return tuple((line.account, line.signed) for line in posting.lines)

    def named_customer(self, posting: Posting, line: PostingLine) -> str:
        """Return the code of the party on the line: Tryton has one only where the account requires it."""
        account = self._master.accounts([line.account]).get(line.account)
        return (line.party or "") if account is not None and account.needs_party else ""

    def master_data(self) -> MasterData:
        """Read parties, accounts, currencies and periods; Tryton must have all that is posted to."""
        return self._master.everything()
