"""The Tryton adapter: batches of postings through our module `usage_external_id`, each key once.

Guarantee: the key is unique in the company by a constraint of Tryton's database; a repeat is answered with the first
entry, other content under the same key is a conflict.
Unit of parallelism: one writer per company: Tryton locks the sequence of entry numbers, more writers only wait.
If the process or Tryton dies in a call: the call is one transaction, all of it is booked or nothing.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final

from config.erp_options import TrytonOptions
from core.errors import MeterbridgeError
from sinks.erp.checks import opposite_problem, problem
from sinks.erp.port import (
    Capabilities,
    Conflict,
    ErpEntry,
    Idempotency,
    Issue,
    NotSent,
    Outcome,
    Posted,
    Posting,
    Rejected,
    Unknown,
    Window,
)
from sinks.erp.tryton_base import LINES_MAX, TrytonBase
from sinks.erp.tryton_client import refusal
from sinks.erp.tryton_documents import INVOICE, MOVE, document, entry, invoice_problem, model_of, outcome

LINES_PER_CALL_MAX: Final = 5_000
"""About fifteen seconds of Tryton's time: a call must not outlive the poster's lease."""
LINES_OF_AN_INVOICE: Final = 500
"""Tryton prints an invoice when it posts it, up to two seconds each: ten a call."""
KEYS_PER_CALL: Final = 500


class TrytonAdapter(TrytonBase):
    """Books into one company of one Tryton database."""

    name = "tryton"

    def __init__(self, options: TrytonOptions, company: str, **more: Any) -> None:
        super().__init__(options, company, **more)
        self.capabilities = Capabilities(
            idempotency=Idempotency.UNIQUE_KEY,
            preflight_asks=True,
            atomic_batch=True,
            postings_max=options.batch_documents,
            lines_max=LINES_MAX,
            invoices=True,
        )

    def _problem(self, posting: Posting) -> Rejected | None:
        if posting.invoice is None:
            return problem(posting, LINES_MAX, self._options.required_dimensions)
        return problem(posting, LINES_MAX) or invoice_problem(posting, self._options)

    def preflight(self, postings: Sequence[Posting]) -> list[Issue]:
        """Check size, balance and dimensions, and that Tryton has the accounts, parties and open periods."""
        issues = []
        sound = []
        for posting in postings:
            found = self._problem(posting)
            if found is None:
                sound.append(posting)
            else:
                issues.append(Issue(posting.key, found.reason, found.text))
        return issues + (self._master.issues(sound) if sound else [])

    def submit(self, postings: Sequence[Posting], attempt_id: str) -> list[Outcome]:
        """Book a batch in one call (more, if it has very many lines); what no ERP would take is not sent."""
        outcomes: list[Outcome] = [self._problem(posting) or NotSent("not reached") for posting in postings]
        todo = [index for index, one in enumerate(outcomes) if isinstance(one, NotSent)]
        for part in _parts(postings, todo):
            answers = self._book([postings[index] for index in part], model_of(postings[part[0]]))
            for index, answer in zip(part, answers, strict=True):
                outcomes[index] = answer
            if not any(isinstance(answer, Posted | Conflict | Rejected) for answer in answers):
                break
        return outcomes

    def _book(self, batch: list[Posting], model: str) -> list[Outcome]:
        documents = {"documents": [document(posting, self._options) for posting in batch]}
        try:
            answer = self._client.post(f"{model}/post_external", documents)
        except MeterbridgeError as error:  # the company could not be found out: nothing was sent
            return [NotSent(str(error)) for _ in batch]
        failure = refusal(answer)
        if failure is not None:
            return [failure for _ in batch]
        try:
            rows = answer.json()  # type: ignore[union-attr]  # refusal() leaves nothing but a whole answer
            if not isinstance(rows, list) or [row["external_id"] for row in rows] != [one.key for one in batch]:
                return [Unknown("Tryton's answer does not fit what was sent") for _ in batch]
            return [outcome(row, model) for row in rows]
        except (ValueError, KeyError, TypeError) as error:
            return [Unknown(f"Tryton's answer cannot be read: {error!r}") for _ in batch]

    def lookup(self, keys: Sequence[str]) -> dict[str, list[ErpEntry]]:
        """Find entries by key."""
        found: dict[str, list[ErpEntry]] = {key: [] for key in keys}
        wanted = list(found)
        for start in range(0, len(wanted), KEYS_PER_CALL):
            body = {"external_ids": wanted[start : start + KEYS_PER_CALL]}
            for model in (MOVE, INVOICE):
                for row in self._client.query(f"{model}/find_external", body):
                    found[row["external_id"]].append(entry(row))
        return found

    def reverse(self, original: ErpEntry, posting: Posting) -> Outcome:
        """Book the opposite entry, with the original as its origin; refuse one that is not the opposite."""
        return opposite_problem(original, posting, self.expected) or self.submit([posting], posting.key)[0]

    def sweep(self) -> int:
        """Return 0: one transaction books, and leaves nothing beside the books."""
        return 0

    def read_back(self, window: Window) -> Iterator[ErpEntry]:
        """Read the entries of those booked days, then the invoices, in the order Tryton made them."""
        for model in (MOVE, INVOICE):
            yield from self._pages(model, window)

    def _pages(self, model: str, window: Window) -> Iterator[ErpEntry]:
        after = 0
        while True:
            body = {
                "first": window.first.isoformat(),
                "last": window.last.isoformat(),
                "after": after,
                "limit": self._page,
            }
            rows = self._client.query(f"{model}/read_external", body)
            yield from (entry(row) for row in rows)
            if len(rows) < self._page:
                return
            after = rows[-1]["id"]

    def balances(self) -> dict[tuple[str, str], Decimal]:
        """Return the balances of all posted moves, in the currency of their lines."""
        rows = self._client.query(f"{MOVE}/external_balances", {})
        return {(account, currency): Decimal(balance) for account, currency, balance in rows}

    def customer_balances(
        self, accounts: Collection[str], until: date | None
    ) -> dict[tuple[str, str, str], Decimal] | None:
        """Return the balances of these accounts by party."""
        body = {"accounts": sorted(accounts), "until": None if until is None else until.isoformat()}
        rows = self._client.query(f"{MOVE}/external_party_balances", body)
        return {(account, currency, party or ""): Decimal(balance) for account, currency, party, balance in rows}


def _parts(postings: Sequence[Posting], todo: Sequence[int]) -> Iterator[list[int]]:
    """Cut a batch so that no call has more than LINES_PER_CALL_MAX lines, or journals and invoices."""
    part: list[int] = []
    lines = 0
    for index in todo:
        size = len(postings[index].lines) if postings[index].invoice is None else LINES_OF_AN_INVOICE
        mixed = part and model_of(postings[part[0]]) != model_of(postings[index])
        if part and (mixed or lines + size > LINES_PER_CALL_MAX):
            yield part
            part, lines = [], 0
        part.append(index)
        lines += size
    if part:
        yield part
